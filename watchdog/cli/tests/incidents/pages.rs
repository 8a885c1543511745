//! Pages: what `hangwatch report` writes, as text and in a real browser.
//!
//! With `HANGWATCH_PICTURES=DIR` the tests leave pictures there for people to look at.

use std::fs;
use std::path::PathBuf;

use hangwatch_incident::schema::Incident;
use hangwatch_report::html;
use hangwatch_report::terminal::{self, Fold, Look};

use super::browser::{Browser, Theme};
use super::sample;

/// The widths and colours every page is looked at in.
const LOOKS: [(u32, Theme); 4] =
    [(1280, Theme::Light), (1280, Theme::Dark), (400, Theme::Light), (400, Theme::Dark)];

fn samples() -> [(&'static str, Incident); 6] {
    [
        ("ddp-4", sample::ddp(4)),
        ("ddp-64", sample::ddp(64)),
        ("innocent", sample::innocent(4)),
        ("lonely", sample::lonely()),
        ("hostile", sample::hostile()),
        ("command", sample::command()),
    ]
}

#[test]
fn a_page_needs_nothing_and_escapes_everything() {
    for (name, incident) in samples() {
        let page = html::page(sample::ID, &incident);
        for wrong in
            ["<script", "<img", "<link", "src=\"", "http://", "https://", "\u{1b}", "\u{202e}"]
        {
            assert!(!page.contains(wrong), "{name} has {wrong}");
        }
        assert!(page.contains("Content-Security-Policy\" content=\"default-src 'none'"), "{name}");
    }
    let page = html::page(sample::ID, &sample::hostile());
    assert!(page.contains("&lt;script&gt;"), "it is spelt out");
}

#[test]
fn an_incident_that_says_nothing_is_a_page_all_the_same() {
    assert!(html::page("x", &Incident::default()).contains("No stack was captured"));
}

#[test]
fn absurd_times_are_drawn_somewhere_and_nobody_panics() {
    let absurd = [0, 1, 1 << 63, u64::MAX];
    for (at, other) in absurd.iter().flat_map(|at| absurd.map(|other| (*at, other))) {
        let mut incident = sample::ddp(4);
        incident.at.monotonic_ns = at;
        for timer in &mut incident.timers {
            timer.acquired.monotonic_ns = other;
            timer.deadline = Some(sample::moment(at));
        }
        if let Some(ending) = &mut incident.ending {
            ending.at.monotonic_ns = other;
        }
        html::page(sample::ID, &incident);
        terminal::text(sample::ID, &incident, Look::of_stdout(Fold::Nothing));
        hangwatch_report::trace::of_incident(&incident);
    }
}

#[test]
fn what_a_command_had_started_is_in_its_page() {
    let page = html::page(sample::ID, &sample::command());
    for part in ["What it had started", "pid 18", "python3 load.py", "/srv/llm/load.py:3"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.contains("2 more processes were not looked at"));
}

#[test]
fn a_page_of_many_workers_stays_small() {
    let page = html::page(sample::ID, &sample::ddp(64));
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
}

/// Pages in a directory, and a browser to look at them.
struct Desk {
    browser: Browser,
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Option<Desk> {
        Some(Desk { browser: Browser::start()?, dir: tempfile::tempdir().unwrap() })
    }

    fn open(&mut self, name: &str, incident: &Incident, (width, theme): (u32, Theme)) {
        let file = self.dir.path().join(format!("{name}.html"));
        fs::write(&file, html::page(sample::ID, incident)).unwrap();
        self.browser.open(&file, width, theme);
    }

    fn is(&mut self, expression: &str) {
        assert_eq!(self.browser.value(expression), true, "{expression}");
    }
}

#[test]
fn every_page_loads_nothing_complains_of_nothing_and_fits_its_window() {
    let Some(mut desk) = Desk::new() else { return };
    let pictures = std::env::var_os("HANGWATCH_PICTURES").map(PathBuf::from);
    for (name, incident) in samples() {
        for look in LOOKS {
            desk.open(name, &incident, look);
            let requests = desk.browser.requests();
            assert_eq!(requests.len(), 1, "{name}: {requests:?}");
            assert_eq!(desk.browser.complaints(), [""; 0], "{name} {look:?}");
            desk.is("document.title.endsWith('hangwatch')");
            desk.is("document.styleSheets.length === 1");
            // Also with everything unfolded: neither the page nor any part scrolls sideways, but for
            // what is made to.
            for unfolded in ["false", "true"] {
                desk.browser.value(&format!(
                    "document.querySelectorAll('details').forEach(d => d.open = {unfolded})"
                ));
                desk.is("document.documentElement.scrollWidth <= innerWidth");
                desk.is("[...document.querySelectorAll('body *:not(svg *)')]
                         .filter(e => !e.closest('.scroll *') && e.getClientRects().length)
                         .every(e => e.getBoundingClientRect().right <= innerWidth + 0.5)");
            }
            if let Some(dir) = &pictures {
                desk.open(name, &incident, look);
                let file = format!("{name}-{}-{:?}.png", look.0, look.1).to_lowercase();
                fs::write(dir.join(file), desk.browser.picture(1700)).unwrap();
            }
        }
    }
}

#[test]
fn what_the_escaping_might_let_through_neither_runs_nor_loads_nor_is_a_style() {
    const INJECTED: &str = "<script>document.title = 'owned'</script>\
        <img src=x onerror=\"document.title = 'owned'\">\
        <svg onload=\"document.title = 'owned'\"></svg>\
        <iframe srcdoc=\"<script>parent.document.title = 'owned'</script>\"></iframe>\
        <link rel=stylesheet href=\"data:text/css,h1{display:none}\">\
        <style>h1 { display: none }</style>\
        <a id=link href=\"javascript:document.title = 'owned'\">here</a>\
        <base href=\"https://elsewhere.invalid/\">";
    let Some(mut desk) = Desk::new() else { return };
    let page = html::page(sample::ID, &sample::ddp(4));
    let injected = page.replacen("<main>", &format!("<main>{INJECTED}"), 1);
    assert_ne!(page, injected, "it is in it");
    let file = desk.dir.path().join("injected.html");
    // Without the policy it does all of that: this test can fail.
    let unguarded = injected.replacen("Content-Security-Policy", "None-At-All", 1);
    fs::write(&file, unguarded).unwrap();
    desk.browser.open(&file, LOOKS[0].0, LOOKS[0].1);
    desk.is("document.title === 'owned'");
    desk.is("!document.querySelector('h1').checkVisibility()");
    assert!(desk.browser.loaded().iter().any(|url| url.starts_with("data:")));
    fs::write(&file, injected).unwrap();
    desk.browser.open(&file, LOOKS[0].0, LOOKS[0].1);
    desk.browser.value("document.querySelector('#link').click()");
    desk.is("document.title.endsWith('hangwatch')");
    desk.is("document.querySelector('h1').checkVisibility()");
    desk.is("document.baseURI === location.href");
    let loaded = desk.browser.loaded();
    assert!(loaded.iter().all(|url| !url.starts_with("data:")), "{loaded:?}");
    let said = desk.browser.complaints();
    assert!(
        said.iter().filter(|text| text.contains("Content Security Policy")).count() >= 6,
        "{said:#?}"
    );
}

#[test]
fn the_suspect_and_the_line_that_hangs_are_seen_at_once() {
    let Some(mut desk) = Desk::new() else { return };
    for look in LOOKS {
        desk.open("ddp-64", &sample::ddp(64), look);
        // The first row is the suspect's, and it is marked; so is what was condemned.
        desk.is("document.querySelector('.actor').classList.contains('suspect')");
        desk.is("document.querySelectorAll('.actor.suspect').length === 1");
        desk.is("document.querySelector('.actor.suspect .who').innerText.includes('rank 2')");
        desk.is("document.querySelector('.actor.suspect .tag.suspect').checkVisibility()");
        desk.is("document.querySelector('.figures .suspect dd').innerText === 'rank 2'");
        desk.is("document.querySelector('.actor.suspect rect.condemned').getBoundingClientRect().width > 100");
        desk.is("document.querySelectorAll('.actor rect.condemned').length === 1");
        desk.is("document.querySelector('.here .function').innerText === '_MultiProcessingDataLoaderIter._try_get_data'");
        desk.is("document.querySelector('.here').checkVisibility()");
    }
}

#[test]
fn whose_deadline_passed_while_it_waited_is_not_taken_for_the_suspect() {
    let Some(mut desk) = Desk::new() else { return };
    desk.open("innocent", &sample::innocent(4), LOOKS[0]);
    desk.is("document.querySelector('.actor.suspect .who').innerText.includes('rank 2')");
    desk.is("!document.querySelector('.actor.suspect rect.condemned')");
    desk.is("document.querySelectorAll('.actor')[1].innerText.includes('rank 0')");
    desk.is("document.querySelectorAll('.actor')[1].querySelector('rect.condemned') !== null");
}

#[test]
fn folds_open_by_click_and_by_key() {
    let Some(mut desk) = Desk::new() else { return };
    desk.open("ddp-64", &sample::ddp(64), LOOKS[2]);
    let thin = "document.querySelector('details.more .actor').checkVisibility()";
    desk.is(&format!("!{thin}"));
    desk.browser.value("document.querySelector('details.more summary').click()");
    desk.is(thin);
    desk.is("document.querySelectorAll('details.more .actor').length === 56");
    // From nowhere, the first tab leads to the first fold.
    desk.open("ddp-64", &sample::ddp(64), LOOKS[2]);
    desk.browser.press("Tab", 9);
    desk.is("document.activeElement.matches('details.more summary')");
    desk.is("getComputedStyle(document.activeElement).outlineStyle === 'solid'");
    desk.browser.press("Enter", 13);
    desk.is(thin);
    desk.browser.press("Enter", 13);
    desk.is(&format!("!{thin}"));
}

#[test]
fn the_words_stand_out_from_what_is_behind_them() {
    // The contrast of two colours, as the W3C's accessibility guidelines count it.
    const CONTRAST: &str = "
        const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => {
                v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 });
            return .2126 * r + .7152 * g + .0722 * b };
        const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
            return (x + .05) / (y + .05) };
        const behind = e => { for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if (c !== 'rgba(0, 0, 0, 0)') return c } };";
    let Some(mut desk) = Desk::new() else { return };
    for look in LOOKS {
        desk.open("ddp-64", &sample::ddp(64), look);
        desk.browser.value("document.querySelectorAll('details').forEach(d => d.open = true)");
        let poor = desk.browser.value(&format!(
            "(() => {{ {CONTRAST}
               const poor = [];
               for (const e of document.querySelectorAll('body *:not(svg):not(svg *)')) {{
                 const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
                 if (!own || !e.checkVisibility()) continue;
                 const r = ratio(getComputedStyle(e).color, behind(e));
                 if (r < 4.5) poor.push(e.className + ' ' + e.innerText + ' ' + r) }}
               for (const t of document.querySelectorAll('text.bar')) {{
                 const bar = t.parentElement.querySelector('rect');
                 const r = ratio(getComputedStyle(t).fill, getComputedStyle(bar).fill);
                 if (r < 4.5) poor.push(t.textContent + ' ' + r) }}
               return poor }})()"
        ));
        assert_eq!(poor, serde_json::json!([]), "{look:?}");
    }
}

#[test]
fn on_paper_nothing_is_folded() {
    let Some(mut desk) = Desk::new() else { return };
    desk.open("ddp-64", &sample::ddp(64), LOOKS[1]);
    desk.browser.as_printed();
    desk.is("[...document.querySelectorAll('details > :not(summary)')].every(
             e => e.getBoundingClientRect().height > 0)");
    desk.is("getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'");
}
