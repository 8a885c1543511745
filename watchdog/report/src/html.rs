//! One incident as a page for the browser: one file that needs nothing else.
//!
//! [`page`] lays it out; `chart` draws who did what around the hang, `stacks` and `facts` write what
//! was captured. There is no script in it, and its policy forbids every load: what a worker says of
//! itself is escaped by [`maud`], and could do nothing if it were not.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use hangwatch_incident::schema::{Ending, Incident, Peer};
use hangwatch_incident::{crowd, story};
use hangwatch_text::{brief_ns, count, plain};

mod chart;
mod facts;
mod stacks;
mod window;

const STYLE: &str = include_str!("html/style.css");

/// The page of an incident, called `id`.
pub fn page(id: &str, incident: &Incident) -> String {
    let title = story::headline(incident);
    let title = story::verdict(incident).unwrap_or(title);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) " \u{b7} hangwatch" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(id, &title, incident))
                main {
                    (told(incident))
                    (chart::section(incident))
                    (stacks::section(&incident.evidence))
                    (stacks::descendants(incident))
                    (others(&incident.others))
                    @if let Some(left_out) = story::others_left_out(incident) { p.none { (left_out) } }
                    (stacks::other_threads(&incident.evidence))
                    (facts::flight_records(incident))
                    (facts::process(incident))
                    (facts::missing(&incident.evidence))
                }
                footer {
                    p {
                        "Written by hangwatch " (env!("CARGO_PKG_VERSION")) " from incident "
                        code { (id) } ". The same for a terminal: "
                        code { "hangwatch show " (id) }
                    }
                }
            }
        }
    }
    .into_string()
}

/// Nothing is loaded, nothing is run; the one style is this one.
fn policy() -> String {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

fn header(id: &str, title: &str, incident: &Incident) -> Markup {
    html! {
        header {
            p.eyebrow { "hangwatch incident " span.id { (id) } }
            h1 { (title) }
            (answer(incident))
            dl.figures { (figures(incident)) }
        }
    }
}

/// The chain of waits to what the title says, and who it was; or at which step the chain was lost.
fn answer(incident: &Incident) -> Markup {
    let known = story::verdict(incident).map(|_| format!("{}.", story::headline(incident)));
    html! {
        @if let Some(beside) = known.or_else(|| story::not_known(incident)) { p { (beside) } }
        @for line in story::chain(incident) { p.chain { code { (line) } } }
    }
}

/// What one wants to know first, in figures.
fn figures(incident: &Incident) -> Markup {
    let first = incident.timers.first();
    let suspect = incident.suspect.as_ref();
    html! {
        (figure("Suspect", "suspect", &suspect.map_or_else(|| "none named".into(), story::who_is_suspected)))
        @if let Some(timer) = first {
            (figure("Had", "", &brief_ns(timer.allowance_ns)))
        }
        (figure("Late by", "", &incident.ending.as_ref().map_or_else(|| "\u{2013}".into(), |e| brief_ns(e.late_ns))))
        (figure("Outcome", outcome_class(incident.ending.as_ref()), &outcome(incident.ending.as_ref())))
        (figure("When (UTC)", "", &story::date_time(&incident.at)))
    }
}

fn figure(label: &str, class: &str, value: &str) -> Markup {
    html! { div class=(class) { dt { (label) } dd { (value) } } }
}

/// `reaped, SIGKILL`.
fn outcome(ending: Option<&Ending>) -> String {
    let word = plain(story::outcome(ending)).into_owned();
    match ending {
        Some(ending) if ending.signal != 0 => format!("{word}, {}", story::signal_name(ending)),
        _ => word,
    }
}

fn outcome_class(ending: Option<&Ending>) -> &'static str {
    match story::outcome(ending) {
        "unkillable" | "failed" | "unattestable" | "braked" => "bad",
        _ => "",
    }
}

fn told(incident: &Incident) -> Markup {
    html! {
        section.story aria-labelledby="what-happened" {
            h2 #what-happened { "What happened" }
            div.columns {
                div {
                    @for paragraph in story::paragraphs(incident) { p { (paragraph) } }
                }
                @if !incident.decisions.is_empty() {
                    (decisions(incident))
                }
            }
        }
    }
}

fn decisions(incident: &Incident) -> Markup {
    let origin_ns = story::origin_ns(incident);
    html! {
        ol.decisions aria-label=(story::decisions_heading(incident)) {
            @for decision in &incident.decisions {
                li {
                    span.when { (story::offset(decision.at.monotonic_ns, origin_ns)) }
                    div {
                        strong { (story::what_was_decided(&decision.what)) }
                        " " (plain(&decision.why))
                    }
                }
            }
        }
    }
}

/// The other workers: what they did in crowds, and folded each for itself.
fn others(peers: &[Arc<Peer>]) -> Markup {
    if peers.is_empty() {
        return html! {
            section { h2 { "The other workers" } p.none { "There was no other worker in the segment." } }
        };
    }
    html! {
        section aria-labelledby="others" {
            h2 #others { "What the other workers were doing" }
            ul.crowds {
                @for crowd in crowd::crowds(peers) {
                    li {
                        strong { (count(crowd.number, "worker")) }
                        @match &crowd.scope {
                            Some(scope) => { " in " code { (plain(scope)) } " for " (ages(&crowd)) }
                            None => " in no scope",
                        }
                        ": " (crowd.who)
                    }
                }
            }
            details {
                summary { "Each of them" }
                div.scroll tabindex="0" role="region" aria-label="The other workers" {
                    table {
                        thead { tr { th { "Worker" } th { "Pid" } th { "Doing" } } }
                        tbody {
                            @for peer in peers {
                                tr {
                                    td { (story::who(&peer.worker)) }
                                    td.number { @if let Some(pid) = peer.worker.pid { (pid) } }
                                    td { (plain(&peer.doing)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn ages(crowd: &crowd::Crowd) -> String {
    let (least, most) = (brief_ns(crowd.ages_ns.0), brief_ns(crowd.ages_ns.1));
    if least == most { least } else { format!("{least} to {most}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_one_style_and_allows_nothing_else() {
        assert!(policy().starts_with("default-src 'none'; style-src 'sha256-"), "{}", policy());
        for loads in ["url(", "@import", "</"] {
            assert!(!STYLE.contains(loads), "{loads} in the style");
        }
    }
}
