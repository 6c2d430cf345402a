//! A chart of curves with marked points and a legend.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

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

const SIZE: (u32, u32) = (900, 460);
/// Room for the legend on the right.
const LEGEND: u32 = 220;

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
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, (FONT, 17).into_font().color(&INK))
            .margin(14)
            .margin_right(LEGEND)
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
            .x_label_formatter(&whole)
            .y_label_formatter(&short)
            .label_style((FONT, 13).into_font().color(&INK))
            .draw()?;
        for (position, curve) in (0i32..).zip(&self.curves) {
            let style = curve.color.stroke_width(2);
            let points = curve.points.iter().copied();
            if curve.dashed {
                chart.draw_series(DashedLineSeries::new(points, 7, 5, style))?;
            } else {
                chart.draw_series(LineSeries::new(points.clone(), style))?;
                let mark = |point| Circle::new(point, 4, curve.color.filled());
                chart.draw_series(points.map(mark))?;
            }
            // Beside the plot, where it hides nothing.
            let (left, height) = ((SIZE.0 - LEGEND) as i32 + 14, 60 + 24 * position);
            area.draw(&PathElement::new([(left, height), (left + 22, height)], style))?;
            let text = (FONT, 13).into_font().color(&INK);
            let text = text.pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(curve.name, (left + 30, height), text))?;
        }
        area.present()?;
        Ok(())
    }
}

/// Sessions and cores are counted; a tick between two of them stays without a number.
fn whole(value: &f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { String::new() }
}

fn short(value: &f64) -> String {
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
