//! Job control around and inside the sandbox, on a terminal. Needs `script` and `bash`.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::Host;

#[test]
fn a_shell_inside_has_job_control_and_gives_the_terminal_back() {
    let host = Host::new();
    let mut terminal = Terminal::start(&host);
    terminal.line(&format!(
        "{} exec --quiet -- bash --norc -i",
        env!("CARGO_BIN_EXE_namegate")
    ));
    terminal.line("echo in$((1+1))side");
    terminal.expect("in2side");
    terminal.line("sh -c 'echo star$((1+1))ting; exec sleep 1000'");
    terminal.expect("star2ting");
    terminal.press("\x1a");
    terminal.expect("Stopped");
    terminal.line("jobs; kill %1; echo job$((1+1))");
    terminal.expect("job2");
    terminal.line("sh -c 'echo again$((1+1)); exec sleep 1000'");
    terminal.expect("again2");
    terminal.press("\x03");
    terminal.expect("^C");
    terminal.line("exit 7");
    terminal.line("echo code$?");
    terminal.expect("code7");
    terminal.line("exit");
    terminal.end();
}

#[test]
fn a_script_around_has_the_terminal_again_after_a_shell_inside() {
    let host = Host::new();
    let mut terminal = Terminal::start(&host);
    let inside = format!("{} exec --quiet -- bash --norc -i", env!("CARGO_BIN_EXE_namegate"));
    terminal.line(&format!("sh -c '{inside}; read line; echo read-$line'"));
    terminal.line("echo in$((1+1))side");
    terminal.expect("in2side");
    terminal.line("exit");
    terminal.line("word");
    terminal.expect("read-word");
    terminal.line("exit");
    terminal.end();
}

#[test]
fn a_command_that_suspends_its_job_suspends_namegate_with_it() {
    let host = Host::new();
    let mut terminal = Terminal::start(&host);
    // As vim does on Ctrl-Z.
    let inside = "kill -TSTP 0; echo res$((1+1))umed";
    terminal.line(&format!(
        "{} exec --quiet -- sh -c '{inside}'",
        env!("CARGO_BIN_EXE_namegate")
    ));
    terminal.expect("Stopped");
    terminal.line("echo out$((1+1))side");
    terminal.expect("out2side");
    terminal.line("fg");
    terminal.expect("res2umed");
    terminal.line("exit");
    terminal.end();
}

/// An interactive shell of the host on a terminal of its own.
struct Terminal {
    process: Child,
    keyboard: ChildStdin,
    screen: ChildStdout,
    shown: String,
}

impl Terminal {
    fn start(host: &Host) -> Self {
        // A shell starts what it runs in the background with these ignored, and tests too.
        let mut command = host.lab.node().command("env");
        command
            .args([
                "--default-signal=INT,QUIT",
                "script",
                "-qefc",
                "bash --norc -i",
                "/dev/null",
            ])
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut terminal = Self {
            keyboard: process.stdin.take().unwrap(),
            screen: process.stdout.take().unwrap(),
            shown: String::new(),
            process,
        };
        terminal.line("echo be$((1+1))gin");
        terminal.expect("be2gin");
        terminal
    }

    fn line(&mut self, text: &str) {
        self.press(&format!("{text}\n"));
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Reads until `text` is shown, and forgets what was shown up to there.
    fn expect(&mut self, text: &str) {
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            let mut buffer = [0; 4096];
            let length = self.screen.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "no {text:?} in {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn end(mut self) {
        drop(self.keyboard);
        self.screen.read_to_end(&mut Vec::new()).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}
