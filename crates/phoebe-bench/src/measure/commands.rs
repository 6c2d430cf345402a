//! The commands that users wait for, in turns: a session, a session without acceleration, stock PHOEBE in-process.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::requests;
use crate::arguments::{Plan, Spell};
use crate::samples::{Samples, Summary};
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

/// The subjects, in the order of [`Times`]; stock PHOEBE is the last.
type Subjects = [Subject; 3];

/// Measures them.
pub(crate) async fn measure(
    settings: &Settings,
    server: &Server,
    python: &Path,
    plan: &Plan,
) -> Result<Commands> {
    let unaccelerated = Server::start(&Settings { accelerate: false, ..settings.clone() }).await?;
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
    let get_value = in_turns(all, plan.spell(plan.values), |_| requests::get_value()).await?;
    let set_value = in_turns(all, plan.spell(plan.values), requests::set_value).await?;
    let set_constraining_value =
        in_turns(all, plan.spell(plan.bundles), requests::set_constraining_value).await?;
    let add_dataset = adding_datasets(all, plan.spell(plan.bundles)).await?;
    let get_bundle = in_turns(all, plan.spell(plan.bundles), |_| requests::get_bundle()).await?;
    let mut computes = Computes::default();
    let run_compute = computes.run(all, plan.spell(plan.computes)).await?;
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
        flux_difference: computes.differences[0],
        unaccelerated_flux_difference: computes.differences[1],
        fluxes_compared: computes.compared,
    })
}

/// The same command again and again, each subject once in each turn. One turn before is not counted.
async fn in_turns(
    subjects: &mut Subjects,
    spell: Spell,
    command: impl Fn(usize) -> Value,
) -> Result<Times> {
    let mut samples = new_samples();
    for turn in turns(spell) {
        for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
            let answer = subject.send(&command(turn)).await?;
            if turn > 0 {
                samples.push_time(answer.elapsed);
            }
        }
    }
    times(&samples)
}

/// Adds the light curve again and again; each but the last is removed again, which is not counted.
async fn adding_datasets(subjects: &mut Subjects, spell: Spell) -> Result<Times> {
    let mut samples = new_samples();
    for turn in turns(spell) {
        for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
            if turn > 0 {
                subject.send(&requests::remove_dataset()).await?;
            }
            let answer = subject.send(&requests::add_dataset()).await?;
            if turn > 0 {
                samples.push_time(answer.elapsed);
            }
        }
    }
    times(&samples)
}

/// Computes, and how far their light curves are from stock PHOEBE's.
#[derive(Default)]
struct Computes {
    differences: [f64; 2],
    compared: usize,
}

impl Computes {
    /// Computes of each subject, of another binary in each turn. One turn before is not counted, but compared.
    async fn run(&mut self, subjects: &mut Subjects, spell: Spell) -> Result<Times> {
        let mut samples = new_samples();
        for turn in turns(spell) {
            let mut fluxes = Vec::new();
            for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
                subject.send(&requests::set_constraining_value(turn)).await?;
                let answer = subject.send(&requests::run_compute()).await?;
                if turn > 0 {
                    samples.push_time(answer.elapsed);
                }
                fluxes.push(match subject {
                    Subject::Session(_) => fluxes_of(&answer.result)?,
                    Subject::Stock(stock) => numbers(&stock.fluxes(requests::DATASET).await?)?,
                });
            }
            self.compare(&fluxes)?;
        }
        times(&samples)
    }

    fn compare(&mut self, fluxes: &[Vec<f64>]) -> Result<()> {
        let (stock, ours) = fluxes.split_last().context("nothing to compare")?;
        ensure!(stock.len() == requests::PHASES, "stock PHOEBE gave {} fluxes", stock.len());
        for (greatest, fluxes) in self.differences.iter_mut().zip(ours) {
            *greatest = greatest.max(greatest_difference(fluxes, stock)?);
            self.compared += fluxes.len();
        }
        Ok(())
    }
}

/// The fluxes in an answer to `run_compute`.
fn fluxes_of(result: &Value) -> Result<Vec<f64>> {
    numbers(&result["model"][requests::DATASET]["fluxes"])
}

fn numbers(list: &Value) -> Result<Vec<f64>> {
    let list = list.as_array().context("no list of fluxes")?;
    list.iter().map(|value| value.as_f64().context("a flux is no number")).collect()
}

fn greatest_difference(left: &[f64], right: &[f64]) -> Result<f64> {
    ensure!(left.len() == right.len(), "{} fluxes, not {}", left.len(), right.len());
    Ok(left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f64::max))
}

/// Turn 0, to warm up, and then those of the spell.
fn turns(spell: Spell) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain((1..).take_while(move |turn| spell.goes_on(turn - 1)))
}

fn new_samples() -> [Samples; 3] {
    [(); 3].map(|()| Samples::of_time())
}

fn times(samples: &[Samples; 3]) -> Result<Times> {
    let [session, unaccelerated, stock] = samples;
    let summary = |samples: &Samples| samples.summary().context("nothing was measured");
    Ok(Times {
        session: summary(session)?,
        unaccelerated: summary(unaccelerated)?,
        stock: summary(stock)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_greatest_difference_is_found_and_a_missing_flux_noticed() {
        assert_eq!(greatest_difference(&[1.0, 2.0, 3.0], &[1.0, 2.5, 2.75]).unwrap(), 0.5);
        assert!(greatest_difference(&[1.0], &[1.0, 2.0]).is_err());
        assert!(numbers(&json!([1.0, null])).is_err());
        assert!(fluxes_of(&json!({"model": {}})).is_err());
    }
}
