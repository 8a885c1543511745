#[path = "../../../cli/tests/tmux/mod.rs"]
mod tmux;

use super::*;

const PANICS: &str = "terminal::tests::panics_with_the_terminal";

#[test]
#[ignore = "run by `a_panic_gives_the_terminal_back`, in a terminal"]
fn panics_with_the_terminal() {
    let mut screen = Screen::take().unwrap();
    screen.draw(|_| panic!("in the middle of it all")).unwrap();
}

#[test]
fn a_panic_gives_the_terminal_back() {
    if tmux::is_missing() {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let run = format!("{} --ignored --exact --nocapture {PANICS}", exe.display());
    let pane = tmux::Pane::start(&format!("RUST_BACKTRACE=0 {run}; stty -a; echo done; read"));
    pane.wait_for("done\n");
    let screen = pane.screen();
    assert!(screen.contains("in the middle of it all"), "{screen}");
    assert!(screen.split_whitespace().any(|word| word == "icanon"), "{screen}");
    let facts = ["alternate_on", "cursor_flag"].map(|name| pane.fact(name));
    assert_eq!(facts, ["0", "1"]);
}
