//! The commands that users wait for, in turns: a session, a session without acceleration, stock
//! PHOEBE in-process.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::turns::in_turns;
use super::{fluxes, requests};
use crate::arguments::{Plan, SampleBudget};
use crate::samples::Summary;
use crate::subject::{Server, Settings, Stock, Subject};

/// All commands, and whether the light curves agree.
#[derive(Debug, Serialize)]
pub(crate) struct Commands {
    /// `get_value` by twig.
    pub(crate) get_value: Times,
    /// `set_value` by twig; nothing depends on the value.
    pub(crate) set_value: Times,
    /// `set_value` by twig; constraints set other parameters from the value.
    pub(crate) set_constraining_value: Times,
    /// `add_dataset` of a light curve.
    pub(crate) add_dataset: Times,
    /// `get_bundle`.
    pub(crate) get_bundle: Times,
    /// `run_compute` of the light curve.
    pub(crate) run_compute: Times,
    /// The greatest difference of any flux of the session from stock PHOEBE's.
    pub(crate) flux_difference: f64,
    /// The same without acceleration.
    pub(crate) unaccelerated_flux_difference: f64,
    /// Fluxes compared, all light curves together.
    pub(crate) fluxes_compared: usize,
}

/// One command's times.
#[derive(Debug, Serialize)]
pub(crate) struct Times {
    /// A session.
    pub(crate) session: Summary,
    /// A session with `worker.accelerate = false`.
    pub(crate) unaccelerated: Summary,
    /// Stock PHOEBE in-process.
    pub(crate) stock: Summary,
}

impl From<[Summary; 3]> for Times {
    fn from([session, unaccelerated, stock]: [Summary; 3]) -> Self {
        Self { session, unaccelerated, stock }
    }
}

/// The subjects, in the order of [`Times`]; stock PHOEBE is the last.
type Subjects = [Subject; 3];

/// Measures them.
pub(crate) async fn measure(
    settings: &Settings,
    server: &Server,
    python: &Path,
    plan: &Plan,
) -> Result<Commands> {
    let unaccelerated = Server::start(&settings.with("worker.accelerate", false)).await?;
    let mut session = server.session().await?;
    let bundle = session.send(&requests::get_bundle()).await?.result["bundle"].take();
    let mut subjects = [
        Subject::Session(session),
        Subject::Session(unaccelerated.session().await?),
        Subject::Stock(Box::new(Stock::start(python).await?.0)),
    ];
    for subject in &mut subjects[1..] {
        subject.send(&requests::load_bundle(&bundle)).await?;
    }

    let all = &mut subjects;
    let get_value = repeating(all, plan.budget(plan.values), |_| requests::get_value()).await?;
    let set_value = repeating(all, plan.budget(plan.values), requests::set_value).await?;
    let set_constraining_value =
        repeating(all, plan.budget(plan.bundles), requests::set_constraining_value).await?;
    let add_dataset = adding_datasets(all, plan.budget(plan.bundles)).await?;
    let get_bundle = repeating(all, plan.budget(plan.bundles), |_| requests::get_bundle()).await?;
    let (run_compute, light_curves) = computing(all, plan.budget(plan.computes)).await?;
    let [session, unaccelerated, stock] = &light_curves;
    for subject in subjects {
        match subject {
            Subject::Session(session) => drop(session.end().await?),
            Subject::Stock(stock) => drop(stock.end().await?),
        }
    }
    Ok(Commands {
        get_value,
        set_value,
        set_constraining_value,
        add_dataset,
        get_bundle,
        run_compute,
        flux_difference: fluxes::greatest_difference(session, stock)?,
        unaccelerated_flux_difference: fluxes::greatest_difference(unaccelerated, stock)?,
        fluxes_compared: session.len() + unaccelerated.len(),
    })
}

/// The same command again and again.
async fn repeating(
    subjects: &mut Subjects,
    budget: SampleBudget,
    command: impl Fn(usize) -> Value,
) -> Result<Times> {
    let step = async |turn, subject: &mut Subject| Ok(subject.send(&command(turn)).await?.elapsed);
    Ok(in_turns(subjects, budget, step).await?.into())
}

/// Adds the light curve again and again; each but the last is removed again, which is not counted.
async fn adding_datasets(subjects: &mut Subjects, budget: SampleBudget) -> Result<Times> {
    let step = async |turn, subject: &mut Subject| {
        if turn > 0 {
            subject.send(&requests::remove_dataset()).await?;
        }
        Ok(subject.send(&requests::add_dataset()).await?.elapsed)
    };
    Ok(in_turns(subjects, budget, step).await?.into())
}

/// Computes of another binary in each turn, and all fluxes of each subject.
async fn computing(
    subjects: &mut Subjects,
    budget: SampleBudget,
) -> Result<(Times, [Vec<f64>; 3])> {
    let mut computing = subjects.each_mut().map(|subject| (subject, Vec::new()));
    let step = async |turn, (subject, light_curves): &mut (&mut Subject, Vec<f64>)| {
        subject.send(&requests::set_constraining_value(turn)).await?;
        let answer = subject.send(&requests::run_compute()).await?;
        light_curves.extend(match subject {
            Subject::Session(_) => fluxes::of_result(&answer.result)?,
            Subject::Stock(stock) => fluxes::numbers(&stock.fluxes(requests::DATASET).await?)?,
        });
        Ok(answer.elapsed)
    };
    let times = in_turns(&mut computing, budget, step).await?;
    Ok((times.into(), computing.map(|(_, light_curves)| light_curves)))
}
