//! A chart of curves with marked points and a legend.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::{FAINT, FONT, INK};

/// What is on an axis, with its unit.
pub(super) struct Axis {
    pub(super) name: &'static str,
    pub(super) logarithmic: bool,
}

/// One curve.
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) color: RGBColor,
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Curves over common axes.
pub(super) struct LineChart {
    pub(super) title: &'static str,
    pub(super) horizontal: Axis,
    pub(super) vertical: Axis,
    pub(super) curves: Vec<Curve>,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

impl LineChart {
    /// Draws it.
    pub(super) fn draw(&self, path: &Path) -> Result<()> {
        let (x, y) = (
            self.range(&self.horizontal, |point| point.0),
            self.range(&self.vertical, |point| point.1),
        );
        let drawn = match (self.horizontal.logarithmic, self.vertical.logarithmic) {
            (false, false) => self.draw_over(path, x, y),
            (false, true) => self.draw_over(path, x, y.log_scale()),
            (true, false) => self.draw_over(path, x.log_scale(), y),
            (true, true) => self.draw_over(path, x.log_scale(), y.log_scale()),
        };
        drawn.map_err(|error| anyhow!("{}: {error}", path.display()))
    }

    /// From 0, or on a logarithmic axis from below the least, to above the greatest.
    fn range(&self, axis: &Axis, coordinate: fn(&(f64, f64)) -> f64) -> Range<f64> {
        let values = || self.curves.iter().flat_map(|curve| &curve.points).map(coordinate);
        let least = values().fold(f64::MAX, f64::min);
        let greatest = values().fold(0.0, f64::max);
        if axis.logarithmic { least / 1.3..greatest * 1.3 } else { 0.0..greatest * 1.15 }
    }

    fn draw_over<X, Y>(&self, path: &Path, x: X, y: Y) -> Outcome
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let area = SVGBackend::new(path, (900, 460)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, (FONT, 17).into_font().color(&INK))
            .margin(14)
            .margin_right(24)
            .x_label_area_size(46)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .x_desc(self.horizontal.name)
            .y_desc(self.vertical.name)
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .label_style((FONT, 13).into_font().color(&INK))
            .draw()?;
        for curve in &self.curves {
            let style = curve.color.stroke_width(2);
            let points = curve.points.iter().copied();
            let drawn = if curve.dashed {
                chart.draw_series(DashedLineSeries::new(points, 7, 5, style))?
            } else {
                let marks =
                    curve.points.iter().map(|point| Circle::new(*point, 4, curve.color.filled()));
                chart.draw_series(marks)?;
                chart.draw_series(LineSeries::new(points, style))?
            };
            drawn
                .label(curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(FAINT)
            .label_font((FONT, 13).into_font().color(&INK))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

fn label(value: &f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    format!("{rounded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(logarithmic: bool, points: Vec<(f64, f64)>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chart.svg");
        let curve = |name, dashed| Curve { name, color: RED, dashed, points: points.clone() };
        let chart = LineChart {
            title: "a title",
            horizontal: Axis { name: "sessions", logarithmic },
            vertical: Axis { name: "milliseconds", logarithmic },
            curves: vec![curve("measured", false), curve("promised", true)],
        };
        chart.draw(&path).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn axes_and_curves_are_named_however_few_points_there_are() {
        for logarithmic in [false, true] {
            for points in [vec![(1.0, 0.4)], vec![(1.0, 0.4), (300.0, 2000.0)]] {
                let picture = drawn(logarithmic, points);
                for name in ["a title", "sessions", "milliseconds", "measured", "promised"] {
                    assert!(picture.contains(name), "{name}");
                }
            }
        }
    }
}
