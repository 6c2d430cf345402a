//! Compute time against the number of cores that the server may use.

use anyhow::{Context, Result};
use serde::Serialize;

use super::requests;
use crate::arguments::Plan;
use crate::machine;
use crate::samples::{Samples, Summary};
use crate::subject::{Server, Settings};

/// Figures at one number of cores.
#[derive(Debug, Serialize)]
pub(crate) struct CorePoint {
    /// Cores that the server and its workers may use.
    pub(crate) cores: usize,
    /// `run_compute` of the light curve.
    pub(crate) run_compute: Summary,
}

/// Measures 1, 2, 4, … cores and all. Each number has a server of its own, for a server looks at
/// its cores at the start.
pub(crate) async fn measure(settings: &Settings, plan: &Plan) -> Result<Vec<CorePoint>> {
    let mut points = Vec::new();
    for cores in numbers_of_cores(machine::cores()) {
        let limited = Settings { cores: Some(cores), ..settings.clone() };
        let server = Server::start(&limited).await?;
        let mut session = server.session().await?;
        session.send(&requests::add_dataset()).await?;
        session.send(&requests::run_compute()).await?;
        let mut times = Samples::of_time();
        let budget = plan.budget(plan.computes);
        while budget.needs_more(times.len()) {
            times.push_time(session.send(&requests::run_compute()).await?.elapsed);
        }
        session.end().await?;
        let run_compute = times.summary().context("nothing was computed")?;
        points.push(CorePoint { cores, run_compute });
    }
    Ok(points)
}

fn numbers_of_cores(all: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |cores| Some(cores * 2));
    doubled.take_while(|cores| *cores < all).chain([all]).collect()
}

#[cfg(test)]
mod tests {
    use super::numbers_of_cores;

    #[test]
    fn cores_double_up_to_all() {
        assert_eq!(numbers_of_cores(1), [1]);
        assert_eq!(numbers_of_cores(2), [1, 2]);
        assert_eq!(numbers_of_cores(12), [1, 2, 4, 8, 12]);
    }
}
