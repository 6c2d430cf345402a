//! What the containment of workers costs a compute: the same light curves with `worker.sandbox =
//! "off"` and `"enforce"`, in turns.

use anyhow::Result;
use serde::Serialize;

use super::turns::in_turns;
use super::{fluxes, requests};
use crate::arguments::Plan;
use crate::samples::Summary;
use crate::subject::{Server, Session, Settings};

/// `run_compute` of the light curve in workers that are contained and in workers that are not.
#[derive(Debug, Serialize)]
pub(crate) struct Sandbox {
    /// With `worker.sandbox = "off"`.
    pub(crate) off: Summary,
    /// With `worker.sandbox = "enforce"`.
    pub(crate) enforce: Summary,
    /// The greatest difference of any flux between them.
    pub(crate) flux_difference: f64,
    /// Fluxes compared, all light curves together.
    pub(crate) fluxes_compared: usize,
}

impl Sandbox {
    /// By what factor a contained compute takes longer; medians.
    pub(crate) fn factor(&self) -> f64 {
        self.enforce.p50 / self.off.p50
    }
}

/// Measures it, with another binary in each turn.
pub(crate) async fn measure(settings: &Settings, plan: &Plan) -> Result<Sandbox> {
    let off = Server::start(&settings.with("worker.sandbox", "off")).await?;
    let enforce = Server::start(&settings.with("worker.sandbox", "enforce")).await?;
    let mut computing = [(off.session().await?, vec![]), (enforce.session().await?, vec![])];
    for (session, _) in &mut computing {
        session.send(&requests::add_dataset()).await?;
    }
    let step = async |turn, (session, light_curves): &mut (Session, Vec<f64>)| {
        session.send(&requests::set_constraining_value(turn)).await?;
        let answer = session.send(&requests::run_compute()).await?;
        light_curves.extend(fluxes::of_result(&answer.result)?);
        Ok(answer.elapsed)
    };
    let [off, enforce] = in_turns(&mut computing, plan.budget(plan.sandbox_computes), step).await?;
    let [(_, free), (_, contained)] = &computing;
    Ok(Sandbox {
        off,
        enforce,
        flux_difference: fluxes::greatest_difference(contained, free)?,
        fluxes_compared: contained.len(),
    })
}
