//! A real browser: Chromium without a screen, driven over a pair of pipes by the DevTools protocol.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_mins(2);

/// What it is told to leave alone: everything but the page.
const OPTIONS: [&str; 12] = [
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-default-browser-check",
    "--no-first-run",
];

/// The colours a page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    Light,
    Dark,
}

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

/// Whether a test must do without. It may not where `cargo xtask test` has installed one.
fn is_missing() -> bool {
    let is_required =
        std::env::var_os("HANGWATCH_TEST_TOOLS").is_some_and(|value| value == "required");
    if is_required || Command::new("chromium").arg("--version").output().is_ok() {
        return false;
    }
    println!("skipped: there is no Chromium; `cargo xtask test` installs it");
    true
}

impl Browser {
    /// Starts one; `None` where there is none and need not be.
    pub(crate) fn start() -> Option<Browser> {
        if is_missing() {
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // The protocol wants descriptors 3 and 4.
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", "chromium"]);
        command.args(OPTIONS).arg(format!("--user-data-dir={}", profile.path().display()));
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let to = process.stdin.take().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { return };
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Browser {
            process,
            to,
            from,
            session: None,
            last_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        browser.attach();
        Some(browser)
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", &json!({"url": "about:blank"}));
        let id = &target["targetId"];
        let attached =
            self.call("Target.attachToTarget", &json!({"targetId": id, "flatten": true}));
        self.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
    }

    /// Opens a file in a window of so many pixels, in these colours; returns once it has loaded.
    pub(crate) fn open(&mut self, file: &Path, width: u32, theme: Theme) {
        self.events.clear();
        self.resize(width, theme);
        self.call("Page.navigate", &json!({"url": format!("file://{}", file.display())}));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive();
            self.events.push(event);
        }
    }

    /// Another width and other colours for the page that is open.
    pub(crate) fn resize(&mut self, width: u32, theme: Theme) {
        let metrics =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let value = if theme == Theme::Dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value}]);
        self.call("Emulation.setEmulatedMedia", &json!({"media": "", "features": features}));
    }

    /// From now on as on paper.
    pub(crate) fn as_printed(&mut self) {
        self.call("Emulation.setEmulatedMedia", &json!({"media": "print"}));
    }

    /// What an expression is worth.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Presses a key and lets it go.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "text": text,
                               "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// The URLs of everything it has asked for since the page was opened.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.told("Network.requestWillBeSent", "/params/request/url")
    }

    /// The URLs of everything it has got since the page was opened.
    pub(crate) fn loaded(&mut self) -> Vec<String> {
        self.told("Network.responseReceived", "/params/response/url")
    }

    /// What it has complained about since the page was opened.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let mut complaints = self.told("Log.entryAdded", "/params/entry/text");
        complaints.extend(self.told("Runtime.consoleAPICalled", "/params/args"));
        complaints.extend(self.told("Runtime.exceptionThrown", "/params/exceptionDetails"));
        complaints.extend(self.told("Page.javascriptDialogOpening", "/params/message"));
        complaints
    }

    fn told(&mut self, method: &str, pointer: &str) -> Vec<String> {
        self.value("1"); // whatever was told before this answer is here
        let events = self.events.iter().filter(|event| event["method"] == method);
        let text = |event: &Value| {
            let value = event.pointer(pointer).cloned().unwrap_or_default();
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        };
        events.map(text).collect()
    }

    /// A picture of the page's first so many pixels downwards.
    pub(crate) fn picture(&mut self, height: u32) -> Vec<u8> {
        let width = self.value("innerWidth");
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let picture = self
            .call("Page.captureScreenshot", &json!({"captureBeyondViewport": true, "clip": clip}));
        let data = picture["data"].as_str().unwrap();
        base64::engine::general_purpose::STANDARD.decode(data).unwrap()
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser is there");
        loop {
            let answer = self.receive();
            if answer["id"] == self.last_id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn receive(&mut self) -> Value {
        self.from.recv_timeout(PATIENCE).expect("the browser answers")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
