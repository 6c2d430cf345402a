//! Which tests may run beside each other: most share the machine, a few load it so much that they
//! want it alone.

use std::sync::Arc;
use std::sync::LazyLock;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

static MACHINE: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

/// A place on the machine, for as long as it is held.
#[derive(Debug)]
#[expect(dead_code, reason = "what counts is that it is held")]
pub(crate) enum Place {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

impl Place {
    pub(crate) async fn take(alone: bool) -> Self {
        let machine = Arc::clone(&MACHINE);
        if alone {
            Self::Alone(machine.write_owned().await)
        } else {
            Self::Shared(machine.read_owned().await)
        }
    }
}
