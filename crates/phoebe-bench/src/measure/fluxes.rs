//! Light curves side by side: every flux of them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::requests;

/// The fluxes in an answer to `run_compute`.
pub(super) fn of_result(result: &Value) -> Result<Vec<f64>> {
    numbers(&result["model"][requests::DATASET]["fluxes"])
}

/// A light curve's fluxes, one each phase.
pub(super) fn numbers(list: &Value) -> Result<Vec<f64>> {
    let list = list.as_array().context("no list of fluxes")?;
    ensure!(list.len() == requests::PHASES, "{} fluxes", list.len());
    list.iter().map(|value| value.as_f64().context("a flux is no number")).collect()
}

/// How far the farthest two fluxes are from each other.
pub(super) fn greatest_difference(left: &[f64], right: &[f64]) -> Result<f64> {
    ensure!(left.len() == right.len(), "{} fluxes, not {}", left.len(), right.len());
    Ok(left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_greatest_difference_is_found_and_a_missing_flux_noticed() {
        assert_eq!(greatest_difference(&[1.0, 2.0, 3.0], &[1.0, 2.5, 2.75]).unwrap(), 0.5);
        assert!(greatest_difference(&[1.0], &[1.0, 2.0]).is_err());
        let mut list = vec![json!(1.0); requests::PHASES];
        assert_eq!(numbers(&json!(list)).unwrap(), [1.0; requests::PHASES]);
        assert!(numbers(&json!(list[1..])).is_err());
        list[7] = json!(null);
        assert!(numbers(&json!(list)).is_err());
        assert!(of_result(&json!({"model": {}})).is_err());
    }
}
