//! What it costs to wake: the first answer of sessions that are asleep, one by one, and of many by
//! many clients.

pub(crate) mod crowd;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::durability::observe;
use super::requests;
use super::turns::in_turns;
use crate::arguments::Plan;
use crate::samples::Summary;
use crate::subject::{Server, Session, Settings};

/// A session that was used sleeps again after so many seconds.
const IDLE_TIMEOUT_SECONDS: f64 = 0.1;
/// The first sleep of a large Bundle also writes its portable copy.
const ASLEEP_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a session that is to sleep.
const PAUSE: Duration = Duration::from_millis(20);

/// First answers of sessions that were asleep.
#[derive(Debug, Serialize)]
pub(crate) struct Sleep {
    /// One session with the Bundle that sessions begin with, while nothing else happens.
    pub(crate) fresh: Summary,
    /// The same with an observed light curve and its computed model.
    pub(crate) observed: Summary,
    /// Many sessions and clients.
    pub(crate) crowd: crowd::Crowd,
}

/// Measures them.
///
/// A sample of a single session is the time from asking a session asleep for one value, over a
/// connection that is open, to the whole answer: a process is forked and contained, the snapshot is
/// read from the disk, or rather from the kernel's cache of it, checked and unpickled, and the
/// value is looked up.
pub(crate) async fn measure(settings: &Settings, plan: &Plan) -> Result<Sleep> {
    let [fresh, observed] = one_by_one(settings, plan).await?;
    Ok(Sleep { fresh, observed, crowd: crowd::measure(settings, plan).await? })
}

async fn one_by_one(settings: &Settings, plan: &Plan) -> Result<[Summary; 2]> {
    let sleepy = settings.with("session.idle_timeout_seconds", IDLE_TIMEOUT_SECONDS);
    let server = Server::start(&sleepy).await?;
    let (mut fresh, mut observed) = (server.session().await?, server.session().await?);
    fresh.send(&requests::set_value(0)).await?;
    observe(&mut observed).await?;
    let step = async |_, session: &mut Session| {
        until_asleep(session).await?;
        Ok(session.send(&requests::get_value()).await?.elapsed)
    };
    in_turns(&mut [fresh, observed], plan.budget(plan.wakes), step).await
}

async fn until_asleep(session: &mut Session) -> Result<()> {
    let end = Instant::now() + ASLEEP_WITHIN;
    while !session.is_asleep().await? {
        ensure!(Instant::now() < end, "a session does not fall asleep");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
