//! The graph in `docs/performance.md`: the plugin on a real agent, beside Consul's Go client.

use crate::backend::AGENT;
use crate::measure::{Run, median};
use crate::subjects::{FRESH, GO, KEPT, NATIVE, PLUGIN, POOLED, named};
use crate::workload::{CALLERS, Workload};
use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The groups of bars, with their labels.
const GROUPS: [(Workload, &str); 7] = [
    (Workload::Info, "info"),
    (Workload::CreateDestroy, "create + destroy"),
    (Workload::Present, "present"),
    (Workload::List(10), "list of 10"),
    (Workload::Create(CALLERS), "64 at a time"),
    (Workload::List(10_000), "list of 10,000"),
    (Workload::List(100_000), "list of 100,000"),
];
/// The colours of the bars of a group. They differ in brightness too.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0x90, 0x90, 0x90), RGBColor(0x1f, 0x5a, 0x96), RGBColor(0x5a, 0xac, 0xe0), RGBColor(0xe0, 0x8a, 0x1e)];

/// Width and height, in pixels.
const SIZE: (u32, u32) = (800, 400);
/// Height of the title and the legend, in pixels.
const HEADER: u32 = 64;
/// Distance of the bars from the left, in pixels.
const LEFT: i32 = 40;
/// Distance of the bars of a group, whose width is 1.
const STEP: f64 = 0.22;
/// Width of a bar.
const WIDTH: f64 = 0.21;

/// Returns the graph as SVG. Each bar is the median of the runs.
///
/// # Errors
///
/// Fails if a run has no figures on a real agent.
pub fn draw(runs: &[Run]) -> Result<String> {
    let subjects = [NATIVE.to_owned(), named(PLUGIN, KEPT), named(PLUGIN, POOLED), named(PLUGIN, FRESH)];
    let time = |workload, subject: &str| {
        let ratios = runs.iter().map(|run| run.ratio(AGENT, workload, subject, GO)).collect::<Option<Vec<_>>>();
        let ratios = ratios.filter(|ratios| !ratios.is_empty());
        anyhow::Ok(median(ratios.with_context(|| format!("{subject} and {GO} were not both measured: {workload}, {AGENT}"))?))
    };
    let mut bars = Vec::new();
    for (workload, label) in GROUPS {
        bars.push((label, subjects.iter().map(|subject| time(workload, subject)).collect::<Result<Vec<_>>>()?));
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        // Not transparent: the text is black, and a page may be dark.
        area.fill(&WHITE)?;
        let (header, chart) = area.split_vertically(HEADER);
        draw_header(&header, &subjects)?;
        draw_bars(&chart, &bars)?;
        area.present()?;
    }
    Ok(svg)
}

fn text(size: u32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_text_style(&SIZE).pos(Pos::new(horizontal, vertical))
}

fn draw_header(area: &DrawingArea<SVGBackend, Shift>, subjects: &[String]) -> Result<()> {
    let title = format!("Time on a real agent, as a multiple of that of {GO} (the line at 1)");
    area.draw(&Text::new(title, (LEFT, 18), text(18, HPos::Left, VPos::Center)))?;
    for (n, (subject, colour)) in subjects.iter().zip(COLOURS).enumerate() {
        let (left, top) = (LEFT + 190 * n as i32, 40);
        area.draw(&Rectangle::new([(left, top), (left + 12, top + 12)], colour.filled()))?;
        area.draw(&Text::new(subject.as_str(), (left + 18, top + 6), text(14, HPos::Left, VPos::Center)))?;
    }
    Ok(())
}

/// Draws a group for each label.
fn draw_bars(area: &DrawingArea<SVGBackend, Shift>, groups: &[(&'static str, Vec<f64>)]) -> Result<()> {
    let right = groups.len() as f64;
    let highest = groups.iter().flat_map(|(_, bars)| bars).copied().fold(1.0, f64::max);
    let mut builder = ChartBuilder::on(area);
    builder.margin_right(10).x_label_area_size(30).y_label_area_size(LEFT);
    let mut chart = builder.build_cartesian_2d(0.0..right, 0.0..highest * 1.1)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh().disable_x_axis().light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.12));
    mesh.axis_style(BLACK.mix(0.4)).y_labels(8).y_label_formatter(&|y| format!("{y:.1}"));
    mesh.label_style(text(14, HPos::Right, VPos::Center)).draw()?;
    let left = |group: usize, bar: usize| group as f64 + 0.5 + (bar as f64 - COLOURS.len() as f64 / 2.0) * STEP;
    for (group, (label, bars)) in groups.iter().enumerate() {
        chart.draw_series(bars.iter().zip(COLOURS).enumerate().map(|(bar, (height, colour))| {
            Rectangle::new([(left(group, bar), 0.0), (left(group, bar) + WIDTH, *height)], colour.filled())
        }))?;
        let below = Text::new(*label, (0, 8), text(14, HPos::Center, VPos::Top));
        chart.draw_series([EmptyElement::at((group as f64 + 0.5, 0.0)) + below])?;
    }
    chart.draw_series([PathElement::new([(0.0, 1.0), (right, 1.0)], BLACK)])?;
    // After the line, which would strike a number out.
    for (group, (_, bars)) in groups.iter().enumerate() {
        chart.draw_series(bars.iter().enumerate().map(|(bar, height)| {
            let number = Text::new(format!("{height:.2}"), (0, -2), text(12, HPos::Center, VPos::Bottom));
            let ground = Rectangle::new([(-10, -11), (10, -1)], WHITE.filled());
            EmptyElement::at((left(group, bar) + WIDTH / 2.0, *height)) + ground + number
        }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Row;

    /// Returns a run in which each subject takes this percentage of the time of the Go client.
    fn run(times: [(&str, u64); 4]) -> Run {
        let mut rows = Vec::new();
        for (workload, _) in GROUPS {
            rows.push(Row::of_rounds(AGENT, workload, GO, &[100]));
            rows.extend(times.map(|(subject, percent)| {
                let subject = if subject == NATIVE { subject.to_owned() } else { named(PLUGIN, subject) };
                Row::of_rounds(AGENT, workload, &subject, &[percent])
            }));
        }
        Run { left_out: Vec::new(), figures: Vec::new(), times: rows }
    }

    /// Returns how many times the graph has this text.
    fn count(svg: &str, text: &str) -> usize {
        svg.lines().filter(|line| *line == text).count()
    }

    #[test]
    fn bars_are_labelled_with_the_medians_of_the_runs() -> Result<()> {
        let runs = [70, 90, 80].map(|kept| run([(NATIVE, 50), (KEPT, kept), (POOLED, 85), (FRESH, 123)]));
        let svg = draw(&runs)?;
        for number in ["0.50", "0.80", "0.85", "1.23"] {
            assert_eq!(count(&svg, number), GROUPS.len(), "{number}: {svg}");
        }
        for (_, label) in GROUPS {
            assert_eq!(count(&svg, label), 1, "{label}: {svg}");
        }
        Ok(())
    }

    #[test]
    fn heights_of_bars_are_in_proportion() -> Result<()> {
        let svg = draw(&[run([(NATIVE, 50), (KEPT, 100), (POOLED, 100), (FRESH, 100)])])?;
        let heights = |colour: RGBColor| -> Vec<f64> {
            let fill = format!("fill=\"#{:02X}{:02X}{:02X}\"", colour.0, colour.1, colour.2);
            let bars = svg.lines().filter(|line| line.starts_with("<rect") && line.contains(&fill));
            let height = |line: &str| line.split_once("height=\"")?.1.split('"').next()?.parse().ok();
            bars.filter_map(height).collect()
        };
        let [native, kept] = [COLOURS[0], COLOURS[1]].map(heights);
        // The first is that of the legend.
        assert_eq!((native.len(), kept.len()), (1 + GROUPS.len(), 1 + GROUPS.len()), "{svg}");
        assert!((kept[1] - 2.0 * native[1]).abs() <= 2.0, "{native:?} {kept:?}");
        Ok(())
    }

    #[test]
    fn runs_without_a_real_agent_are_refused() {
        let mut without = run([(NATIVE, 50), (KEPT, 80), (POOLED, 85), (FRESH, 123)]);
        without.times.retain(|row| row.workload != Workload::Info.to_string() || row.subject != GO);
        for runs in [vec![], vec![without]] {
            let error = draw(&runs).unwrap_err().to_string();
            assert!(error.contains("info, real agent"), "{error}");
        }
    }
}
