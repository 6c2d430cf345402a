//! A chart of distributions: one row each, on a common logarithmic scale.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{FAINT, FONT, INK};
use crate::report::markdown::significant;
use crate::samples::Summary;

/// One distribution.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) color: RGBColor,
    pub(super) summary: Summary,
}

/// Distributions one below the other.
pub(super) struct SpreadChart {
    pub(super) title: &'static str,
    pub(super) axis: &'static str,
    pub(super) rows: Vec<Row>,
}

const WIDTH: u32 = 900;
const ROW_HEIGHT: u32 = 26;
const TITLE_AND_AXIS: u32 = 110;
/// Room for names on the left and medians on the right.
const SIDES: (u32, u32) = (210, 90);

impl SpreadChart {
    /// Draws it.
    pub(super) fn draw(&self, path: &Path) -> Result<()> {
        self.draw_rows(path).map_err(|error| anyhow!("{}: {error}", path.display()))
    }

    fn draw_rows(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let height = TITLE_AND_AXIS + ROW_HEIGHT * self.rows.len() as u32;
        let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let least = self.rows.iter().map(|row| row.summary.p05).fold(f64::MAX, f64::min);
        let greatest = self.rows.iter().map(|row| row.summary.p99).fold(least, f64::max);
        let rows = self.rows.len() as f64;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, (FONT, 17).into_font().color(&INK))
            .margin(12)
            .margin_left(SIDES.0)
            .margin_right(SIDES.1)
            .x_label_area_size(46)
            .build_cartesian_2d(((least / 1.5)..(greatest * 1.5)).log_scale(), rows..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(WHITE)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .x_desc(self.axis)
            .x_label_formatter(&|value| trimmed(*value))
            .label_style((FONT, 13).into_font().color(&INK))
            .draw()?;
        let plot = chart.plotting_area();
        let (left, right) =
            (plot.get_x_axis_pixel_range().start, plot.get_x_axis_pixel_range().end);
        for (index, row) in self.rows.iter().enumerate() {
            let Summary { p05, p25, p50, p75, p95, p99, .. } = row.summary;
            let middle = index as f64 + 0.5;
            let line = |from: f64, to: f64, width: u32| {
                PathElement::new([(from, middle), (to, middle)], row.color.stroke_width(width))
            };
            plot.draw(&line(p05, p95, 2))?;
            plot.draw(&line(p25, p75, 9))?;
            plot.draw(&Circle::new((p99, middle), 3, row.color.filled()))?;
            plot.draw(&PathElement::new(
                [(p50, middle - 0.34), (p50, middle + 0.34)],
                INK.stroke_width(2),
            ))?;
            let (_, y) = plot.map_coordinate(&(p50, middle));
            let text = |side| (FONT, 13).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
            let median = format!("{} ms", significant(p50));
            area.draw(&Text::new(row.name, (left - 10, y), text(HPos::Right)))?;
            area.draw(&Text::new(median, (right + 10, y), text(HPos::Left)))?;
        }
        area.present()?;
        Ok(())
    }
}

/// A power of ten without needless zeros.
fn trimmed(value: f64) -> String {
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Samples;

    #[test]
    fn rows_carry_their_names_and_medians() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chart.svg");
        let mut samples = Samples::of_time();
        [0.4, 0.5, 900.0].into_iter().for_each(|sample| samples.push(sample));
        let summary = samples.summary().unwrap();
        let rows = vec![
            Row { name: "ping", color: RED, summary },
            Row { name: "get_value", color: BLUE, summary },
        ];
        SpreadChart { title: "a title", axis: "milliseconds", rows }.draw(&path).unwrap();
        let picture = std::fs::read_to_string(path).unwrap();
        for text in ["a title", "milliseconds", "ping", "get_value", "0.500 ms"] {
            assert!(picture.contains(text), "{text}");
        }
    }
}
