//! Drawings of measurements: the only module that names plotters.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Pixels of a panel.
const PANEL: (u32, u32) = (760, 320);
const MARGIN: u32 = 12;
/// For the numbers beside an axis.
const LABELS: u32 = 64;
const TITLE: (&str, u32) = ("sans-serif", 20);
const TEXT: (&str, u32) = ("sans-serif", 15);
/// Told apart also by those who see fewer colours (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Curves over one axis.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) scale: Scale,
    pub(crate) curves: Vec<Curve>,
}

/// How both axes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0, evenly.
    Linear,
    /// Steps of ten are as far apart as each other.
    Logarithmic,
}

/// Points that belong together, from left to right.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws panels below each other into an SVG file.
pub(crate) fn write(path: &Path, panels: &[Panel]) -> Result<()> {
    let mut text = String::new();
    draw(&mut text, panels).with_context(|| format!("draw {}", path.display()))?;
    std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}

fn draw(text: &mut String, panels: &[Panel]) -> Result<()> {
    let count = u32::try_from(panels.len()).context("too many panels")?;
    ensure!(count > 0, "nothing to draw");
    let area = SVGBackend::with_string(text, (PANEL.0, PANEL.1 * count)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    for (panel, area) in panels.iter().zip(area.split_evenly((panels.len(), 1))) {
        let points = || panel.curves.iter().flat_map(|curve| curve.points.iter().copied());
        ensure!(points().next().is_some(), "panel {:?} has no points", panel.title);
        ensure!(points().all(|(x, y)| x.is_finite() && y.is_finite()), "panel {:?} has what is no number", panel.title);
        let (x, y) = (range(points().map(|(x, _)| x), panel.scale), range(points().map(|(_, y)| y), panel.scale));
        match panel.scale {
            Scale::Linear => curves(&area, panel, x, y)?,
            Scale::Logarithmic => curves(&area, panel, x.log_scale(), y.log_scale())?,
        }
    }
    area.present().map_err(failed)
}

/// From 0, or from the power of ten below, to a bit above the greatest.
fn range(values: impl Iterator<Item = f64>, scale: Scale) -> Range<f64> {
    let (least, most) = values.fold((f64::MAX, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    match scale {
        Scale::Linear => 0.0..(most * 1.1).max(1e-9),
        Scale::Logarithmic => {
            let least = least.max(1e-9);
            10_f64.powf(least.log10().floor())..10_f64.powf(most.max(least).log10().floor() + 1.0)
        }
    }
}

fn curves<X, Y>(area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, panel: &Panel, x: X, y: Y) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, TITLE)
        .margin(MARGIN)
        .x_label_area_size(LABELS / 2 + MARGIN)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(x, y)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc(&panel.x)
        .y_desc(&panel.y)
        .x_label_formatter(&|value| number(*value))
        .y_label_formatter(&|value| number(*value))
        .label_style(TEXT)
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(failed)?;
    for (curve, colour) in panel.curves.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
        let sample = move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2));
        chart.draw_series(line).map_err(failed)?.label(&curve.name).legend(sample);
        // A mark for each point, where they are few.
        if curve.points.len() <= 12 {
            let marks = curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
            chart.draw_series(marks).map_err(failed)?;
        }
    }
    // What grows by steps of ten goes down or across, what grows evenly goes up.
    let legend = match panel.scale {
        Scale::Linear => SeriesLabelPosition::UpperLeft,
        Scale::Logarithmic => SeriesLabelPosition::UpperRight,
    };
    chart
        .configure_series_labels()
        .position(legend)
        .background_style(WHITE.mix(0.8))
        .label_font(TEXT)
        .draw()
        .map_err(failed)
}

/// As short as it can be said: `0.05`, `20`, `50k`, `3M`.
fn number(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// An error of the drawing area, which borrows from it.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(scale: Scale, points: Vec<(f64, f64)>) -> Panel {
        let curves = vec![Curve { name: "a < b".to_owned(), points }];
        Panel { title: "How".to_owned(), x: "load".to_owned(), y: "cost".to_owned(), scale, curves }
    }

    #[test]
    fn every_curve_and_axis_is_in_the_drawing() {
        let mut text = String::new();
        let points = vec![(10.0, 1.0), (100.0, 8.0), (1_000.0, 90.0)];
        draw(&mut text, &[panel(Scale::Logarithmic, points.clone()), panel(Scale::Linear, points)]).unwrap();
        assert!(text.starts_with("<svg"), "{text}");
        assert_eq!(text.matches("a &lt; b").count(), 2, "{text}");
        // Each curve, and its sample in the legend.
        assert_eq!(text.matches("stroke-width=\"2\"").count(), 4, "{text}");
        assert_eq!(text.matches("<circle").count(), 6, "{text}");
        for label in ["load", "cost", "How", "1k", "100"] {
            assert!(text.contains(&format!("{label}\n")), "no {label}: {text}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_drawn() {
        let mut text = String::new();
        assert!(draw(&mut text, &[]).is_err());
        assert!(draw(&mut text, &[panel(Scale::Linear, Vec::new())]).is_err());
        assert!(draw(&mut text, &[panel(Scale::Linear, vec![(1.0, f64::NAN)])]).is_err());
    }

    #[test]
    fn axes_hold_their_values() {
        assert_eq!(range([5.0, 50.0].into_iter(), Scale::Logarithmic), 1.0..100.0);
        assert_eq!(range([1.0, 100.0].into_iter(), Scale::Logarithmic), 1.0..1_000.0);
        let linear = range([5.0, 10.0].into_iter(), Scale::Linear);
        assert!(linear.start == 0.0 && linear.contains(&10.5) && !linear.contains(&11.5));
    }

    #[test]
    fn numbers_are_short() {
        let shown: Vec<_> = [0.0, 0.05, 20.0, 1_500.0, 50_000.0, 3e6].into_iter().map(number).collect();
        assert_eq!(shown, ["0", "0.05", "20", "1.5k", "50k", "3M"]);
    }
}
