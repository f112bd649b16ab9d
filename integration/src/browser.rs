//! A real browser without a screen, for the tests of pages: Chromium, over its debugging pipe
//! (Chrome DevTools Protocol). Everything panics with what went wrong, since it is only used by
//! tests.

#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use lab::process::{find_program, succeed};
use netns::Namespace;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the browser may take to start, and for one command.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is asked for.
const PAUSE: Duration = Duration::from_millis(50);

/// A browser with one page. It ends when this is dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: File,
    answers: Receiver<Value>,
    last: u64,
    session: Option<String>,
    _profile: TempDir,
}

/// The browser's program; `None` where none is installed, which is said.
pub fn find_browser() -> Option<PathBuf> {
    let found = find_program("chromium");
    if found.is_none() {
        eprintln!("skipped: chromium is not installed");
    }
    found
}

impl Browser {
    /// Starts in this network namespace, with an empty page.
    pub fn start(program: &Path, namespace: &Namespace) -> Self {
        let profile = TempDir::new().unwrap();
        let [commands, answers] = ["commands", "answers"].map(|name| profile.path().join(name));
        succeed(Command::new("mkfifo").args([&commands, &answers])).unwrap();
        let mut command = namespace.command("sh");
        command
            .args(["-c", "exec \"$@\" 3<\"$COMMANDS\" 4>\"$ANSWERS\"", "sh"])
            .arg(program)
            .args([
                "--headless",
                // Its sandbox does not start as root, and it sees pages of this repository alone.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .envs([("COMMANDS", &commands), ("ANSWERS", &answers)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        // In the order in which the shell opens them.
        let commands = OpenOptions::new().write(true).open(commands).unwrap();
        let pipe = BufReader::new(File::open(answers).unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            for message in pipe.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap();
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            answers,
            last: 0,
            session: None,
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser
    }

    /// Opens a page, and waits until it is there.
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({ "url": url }));
        assert_eq!(opened.get("errorText"), None, "{url}");
        self.wait(&format!("{url} is there"), "document.readyState === 'complete'");
    }

    /// What an expression of JavaScript is in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", &parameters);
        assert_eq!(answer.get("exceptionDetails"), None, "{expression}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, what: &str, expression: &str) -> Duration {
        let waited = patience::wait(PATIENCE, PAUSE, || self.evaluate(expression) == json!(true));
        waited.unwrap_or_else(|| {
            panic!(
                "waited in vain until {what}: {}",
                self.evaluate("document.body.innerText")
            )
        })
    }

    /// Gives the page this many pixels of width.
    pub fn set_width(&mut self, width: u32) {
        let parameters = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": true});
        self.call("Emulation.setDeviceMetricsOverride", &parameters);
    }

    /// Has the page drawn as for people who like it dark.
    pub fn set_dark(&mut self) {
        let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
        self.call("Emulation.setEmulatedMedia", &dark);
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        write!(self.commands, "{command}\0").unwrap();
        loop {
            let mut answer = self.answers.recv_timeout(patience::scaled(PATIENCE)).unwrap();
            if answer["id"] == json!(self.last) {
                assert_eq!(answer.get("error"), None, "{method} {parameters}");
                return answer["result"].take();
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
