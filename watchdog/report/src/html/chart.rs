//! The timeline: who was in which scope around the hang, a row a thread.
//!
//! It is drawn with lengths in percent, so that it is as wide as the page without a script. The suspect
//! comes first, then whom the watchdog condemned, then the others; those beyond the first few are
//! folded to thin rows.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::window::Window;
use hangwatch_incident::schema::{Incident, Lane, Timer, Worker};
use hangwatch_incident::story;
use hangwatch_incident::track::{End, Span, Track, tracks};
use hangwatch_text::{brief_ns, count, plain};

/// Workers whose rows are not folded.
const FULL: usize = 8;

/// Rows of one worker.
const ROWS_OF_ONE: usize = 6;

/// How deep scopes are drawn.
const DEEPEST: usize = 12;

/// Bars of one row: far more than can be told apart.
const MOST_BARS: usize = 2_000;

/// Percent of the width below which bars that touch become one.
const SLIVER: f64 = 0.25;

/// A worker's rows.
struct Actor<'i> {
    worker: &'i Worker,
    role: Role,
    verdict: &'static str,
    tracks: Vec<Track>,
    /// Until when it is known to have lived, ns.
    until_ns: Option<u64>,
}

/// Whose rows they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    CondemnedSuspect,
    Suspect,
    Condemned,
    Other,
}

impl Role {
    fn is_suspect(self) -> bool {
        matches!(self, Role::CondemnedSuspect | Role::Suspect)
    }
}

/// How tall bars are, and whether they have names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Full,
    Thin,
}

impl Size {
    fn bar(self) -> usize {
        match self {
            Size::Full => 20,
            Size::Thin => 6,
        }
    }
}

pub(super) fn section(incident: &Incident) -> Markup {
    let actors = actors(incident);
    let suspects: Vec<Track> =
        actors.iter().filter(|a| a.role.is_suspect()).flat_map(|a| a.tracks.clone()).collect();
    let all: Vec<&Track> = actors.iter().flat_map(|actor| &actor.tracks).collect();
    if all.iter().all(|track| track.spans.is_empty()) {
        return html! {
            section { h2 { "Timeline" } p.none { "No scope was recorded." } }
        };
    }
    let window = Window::around(incident, &suspects, &all);
    let (full, rest) = actors.split_at(actors.len().min(FULL));
    html! {
        section aria-labelledby="timeline" {
            h2 #timeline { "Timeline" }
            p.legend {
                span.key.done { "ended" } span.key.open { "open" }
                span.key.condemned { (verdict(incident)) }
                span.key.deadline { "deadline" } span.key.moment { "when it was " (verdict(incident)) }
            }
            div.chart {
                (scale(&window))
                @for actor in full { (rows(actor, &window, Size::Full)) }
                @if !rest.is_empty() {
                    details.more {
                        summary { (count(rest.len(), "more worker")) }
                        @for actor in rest { (rows(actor, &window, Size::Thin)) }
                    }
                }
            }
        }
    }
}

/// What became of the timers whose deadline passed.
fn verdict(incident: &Incident) -> &'static str {
    let is_reported = |timer: &Timer| timer.state == "reported";
    let reported = story::outcome(incident.ending.as_ref()) == "reported"
        || incident.timers.iter().all(is_reported) && !incident.timers.is_empty();
    if reported { "reported" } else { "condemned" }
}

/// Everybody, the most telling first.
fn actors(incident: &Incident) -> Vec<Actor<'_>> {
    let at_ns = incident.at.monotonic_ns;
    let actor = |worker, lanes: &[Lane], is_condemned: bool| {
        let role = match (story::is_suspect(incident.suspect.as_ref(), worker), is_condemned) {
            (true, true) => Role::CondemnedSuspect,
            (true, false) => Role::Suspect,
            (false, true) => Role::Condemned,
            (false, false) => Role::Other,
        };
        let ending = incident
            .ending
            .as_ref()
            .filter(|ending| is_condemned && matches!(&*ending.outcome, "reaped" | "exited"));
        let until_ns = ending.map(|ending| ending.at.monotonic_ns);
        Actor { worker, role, verdict: verdict(incident), tracks: tracks(lanes, at_ns), until_ns }
    };
    let peers = incident.others.iter().map(|peer| actor(&peer.worker, &peer.lanes, false));
    let own = actor(&incident.worker, &incident.evidence.lanes, true);
    let mut actors: Vec<Actor<'_>> = [own].into_iter().chain(peers).collect();
    actors.sort_by_key(|actor| (actor.role, actor.worker.rank.is_none(), actor.worker.rank));
    actors
}

fn scale(window: &Window) -> Markup {
    html! {
        div.row.scale aria-hidden="true" {
            div {}
            svg width="100%" height="22" {
                @for tick in window.ticks() {
                    @let now = tick.label == "0";
                    line.grid.now[now] x1=(percent(tick.x)) x2=(percent(tick.x)) y1="16" y2="22" {}
                    text.now[now] x=(percent(tick.x)) y="12" text-anchor=(anchor(tick.x)) { (tick.label) }
                }
            }
        }
    }
}

/// A label near an edge stays within it.
fn anchor(x: f64) -> &'static str {
    match x {
        x if x < 4.0 => "start",
        x if x > 96.0 => "end",
        _ => "middle",
    }
}

fn rows(actor: &Actor<'_>, window: &Window, size: Size) -> Markup {
    let drawn: Vec<&Track> =
        actor.tracks.iter().filter(|track| !track.spans.is_empty()).take(ROWS_OF_ONE).collect();
    let left_out = actor.tracks.len() - drawn.len();
    html! {
        div.actor.suspect[actor.role.is_suspect()].thin[size == Size::Thin] {
            @if drawn.is_empty() { (row(actor, None, window, size, 0)) }
            @for (index, track) in drawn.iter().enumerate() {
                (row(actor, Some(track), window, size, index))
            }
            @if left_out > 0 && !drawn.is_empty() && size == Size::Full {
                p.left-out { (count(left_out, "more thread")) " without scopes here" }
            }
        }
    }
}

fn row(
    actor: &Actor<'_>,
    track: Option<&Track>,
    window: &Window,
    size: Size,
    index: usize,
) -> Markup {
    let bars = track.map_or_else(Vec::new, |track| bars(track, actor.until_ns, window));
    let depth = bars.iter().map(|bar| bar.depth + 1).max().unwrap_or(1);
    let height = depth * (size.bar() + 2) + 6;
    let now = window.x(window.at_ns);
    html! {
        div.row {
            div.who {
                @if index == 0 { (name(actor)) }
                @if size == Size::Full && let Some(track) = track && !track.thread.is_empty() {
                    span.thread { (plain(&track.thread)) }
                }
            }
            svg width="100%" height=(height) role="img" aria-label=(spoken(actor, track)) {
                @for tick in window.ticks() {
                    line.grid x1=(percent(tick.x)) x2=(percent(tick.x)) y1="0" y2=(height) {}
                }
                @for bar in &bars { (bar.draw(size)) }
                @if actor.until_ns.is_none() {
                    // What is open was so when it was looked at; of the time after, nothing is known.
                    rect.unknown x=(percent(now)) y="0" width=(percent(100.0 - now)) height=(height) {}
                }
                line.grid.now x1=(percent(now)) x2=(percent(now))
                    y1="0" y2=(height) {}
                @for bar in &bars { (bar.draw_deadline(size)) }
            }
        }
    }
}

fn name(actor: &Actor<'_>) -> Markup {
    html! {
        strong { (story::who(actor.worker)) }
        @if actor.role.is_suspect() { span.tag.suspect { "suspect" } }
        @if matches!(actor.role, Role::Condemned | Role::CondemnedSuspect) {
            span.tag.condemned { (actor.verdict) }
        }
    }
}

/// The row in words, for who cannot see it.
fn spoken(actor: &Actor<'_>, track: Option<&Track>) -> String {
    let mut text = story::who(actor.worker);
    let open: Vec<String> = track
        .into_iter()
        .flat_map(|track| &track.spans)
        .filter(|span| span.end == End::Open)
        .map(|span| story::quoted(&span.scope))
        .collect();
    let _ = if open.is_empty() {
        write!(text, ": no open scope")
    } else {
        write!(text, ": open scopes {}", open.join(", "))
    };
    text
}

/// One bar: a span, or several that are too short to be told apart.
struct Bar {
    left: f64,
    right: f64,
    depth: usize,
    class: &'static str,
    label: String,
    told: String,
    deadline: Option<f64>,
    spans: usize,
}

/// The bars of a track, those of one depth from left to right.
fn bars(track: &Track, until_ns: Option<u64>, window: &Window) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    // When each depth is free again, and its last bar.
    let mut taken: Vec<(u64, usize)> = Vec::new();
    for span in &track.spans {
        let begin = span.begin_ns.unwrap_or(track.from_ns);
        let end = span.end.at_ns().or(until_ns).unwrap_or(u64::MAX).max(begin);
        if end < window.from_ns || begin > window.to_ns {
            continue;
        }
        let depth = taken.iter().position(|(until, _)| *until <= begin).unwrap_or(taken.len());
        // What is not drawn takes no place: the work for a span is bounded.
        if depth >= DEEPEST || bars.len() >= MOST_BARS {
            continue;
        }
        let bar = bar(span, (begin, end), depth, window);
        let last = taken.get(depth).map(|(_, last)| *last);
        let place = if let Some(last) = last.filter(|last| bars[*last].touches(&bar)) {
            bars[last].absorb(&bar);
            last
        } else {
            bars.push(bar);
            bars.len() - 1
        };
        if depth == taken.len() {
            taken.push((end, place));
        } else {
            taken[depth] = (end, place);
        }
    }
    bars
}

fn bar(span: &Span, (begin, end): (u64, u64), depth: usize, window: &Window) -> Bar {
    let class = match (span.end, span.condemned) {
        (_, true) => "condemned",
        (End::Open, false) => "open",
        (End::LostBefore(_), false) => "lost",
        (_, false) => "done",
    };
    let name = plain(&span.scope).into_owned();
    let lasted = match span.end {
        End::Open => format!("open for {}", brief_ns(window.at_ns.saturating_sub(begin))),
        End::Released(_) => format!("took {}", brief_ns(end - begin)),
        End::TooLate(_) => format!("released too late, after {}", brief_ns(end - begin)),
        End::Abandoned(_) => format!("abandoned after {}", brief_ns(end - begin)),
        End::LostBefore(_) => "its end was not recorded".to_owned(),
    };
    let due = span.deadline_ns.filter(|at| window.holds(*at) && end >= *at);
    Bar {
        left: window.x(begin),
        right: window.x(end),
        depth,
        class,
        told: format!("{name}: {lasted}"),
        label: name,
        deadline: due.map(|at| window.x(at)),
        spans: 1,
    }
}

impl Bar {
    /// Whether both are slivers with nothing between them to see.
    fn touches(&self, next: &Bar) -> bool {
        let is_short = |bar: &Bar| bar.right - bar.left < SLIVER && bar.class == "done";
        let is_grown = self.spans > 1 && self.class == "done";
        (is_short(self) || is_grown) && is_short(next) && next.left - self.right < SLIVER
    }

    fn absorb(&mut self, next: &Bar) {
        self.spans += 1;
        self.right = self.right.max(next.right);
        self.label.clear();
        self.told = format!("{} scopes, among them {}", self.spans, next.label);
        self.deadline = None;
    }

    fn draw(&self, size: Size) -> Markup {
        let width = self.right - self.left;
        let y = self.depth * (size.bar() + 2) + 3;
        let named = size == Size::Full && width >= 4.0;
        html! {
            svg.named[named].sliver[width < 3.0 * SLIVER] x=(percent(self.left)) y=(y) width=(percent(width)) height=(size.bar()) {
                title { (self.told) }
                rect class={ "bar " (self.class) } width="100%" height="100%" rx="2" {}
                @if named {
                    // A name that has room on a wide page only is hidden on a narrow one.
                    @let narrow = if width < 14.0 { " wide-only" } else { "" };
                    text class={ "bar " (self.class) (narrow) } x="6" y="14" { (self.label) }
                }
            }
        }
    }

    /// Where it was due, a notch through it.
    fn draw_deadline(&self, size: Size) -> Markup {
        let y = self.depth * (size.bar() + 2) + 1;
        html! {
            @if let Some(x) = self.deadline {
                line.due x1=(percent(x)) x2=(percent(x)) y1=(y) y2=(y + size.bar() + 4) {}
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{share:.2}%")
}
