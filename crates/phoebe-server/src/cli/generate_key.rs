//! `phoebe-server generate-key`: a random API key, or a secret for tokens.

use rand::Rng as _;

use super::{Failure, print};

/// Arguments of `generate-key`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  phoebe-server generate-key
  phoebe-server generate-key --prefix class2026")]
pub(super) struct Arguments {
    /// Text before the underscore, to tell keys apart
    #[arg(long, default_value = "phoebe")]
    prefix: String,
}

/// Prints one key.
pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    print(&format!("{}_{}\n", arguments.prefix, hex::encode(bytes)))
}
