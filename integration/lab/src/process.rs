//! Runs agents as processes on the lab's node.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use api::ApiClient;
use api::ask;
use api::{AgentStatus, NameRow, RecordRow, RefusedLookupRow};
use netns::Namespace;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use state_dir::{CLUSTER_FILE, LEDGER_FILE, OBJECTS_FILE};
use tempfile::TempDir;

use super::client;

/// How long tests wait for an agent's start and end, and for any other condition, before it is
/// [scaled](patience::scaled). Only failures take this long.
pub const PATIENCE: Duration = Duration::from_secs(90);

const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// A binary of `namegate` and the directories that its agents work with. They outlive the agents.
#[derive(Debug)]
pub struct Installation {
    binary: PathBuf,
    node: Namespace,
    directory: TempDir,
    /// The flags that say where objects come from.
    source: Vec<OsString>,
    /// A directory that agents search for programs first.
    programs: Option<PathBuf>,
}

/// A running agent. Dropping it kills it, as a crash would.
#[derive(Debug)]
pub struct AgentProcess {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    node: Namespace,
    api: ApiClient,
}

impl Installation {
    /// An installation of `binary` on `node`.
    pub fn new(binary: impl Into<PathBuf>, node: &Namespace) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("namegate-lab-").tempdir()?;
        let objects = directory.path().join("objects");
        fs::create_dir(&objects)?;
        Ok(Self {
            binary: binary.into(),
            node: node.clone(),
            directory,
            source: vec!["--objects".into(), objects.into()],
            programs: None,
        })
    }

    /// Agents that are started from now on watch a cluster, as the agent of this node.
    pub fn watch_cluster(&mut self, kubeconfig: &Path, node: &str) {
        self.source = vec!["--kubeconfig".into(), kubeconfig.into(), "--node".into(), node.into()];
    }

    /// Agents that are started from now on run `script` in place of `program`.
    pub fn replace_program(&mut self, program: &str, script: &str) -> io::Result<()> {
        let programs = self.directory.path().join("programs");
        fs::create_dir_all(&programs)?;
        let file = programs.join(program);
        fs::write(&file, script)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        self.programs = Some(programs);
        Ok(())
    }

    /// The network namespace of its agents.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The directory of objects.
    pub fn objects(&self) -> PathBuf {
        self.directory.path().join("objects")
    }

    /// Writes a file into the directory of objects, in one step as editors and `kubectl` mounts do.
    pub fn write_object(&self, file: &str, text: &str) -> io::Result<()> {
        let finished = self.objects().join(file);
        let unfinished = self.directory.path().join(file);
        fs::write(&unfinished, text)?;
        fs::rename(unfinished, finished)
    }

    /// Removes a file from the directory of objects.
    pub fn remove_object(&self, file: &str) -> io::Result<()> {
        fs::remove_file(self.objects().join(file))
    }

    /// A path for a file of the test, outside the directories of the agent.
    pub fn scratch(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// A client of the agent that runs.
    pub fn api(&self) -> ApiClient {
        ApiClient::new(&self.path("run"))
    }

    /// Starts an agent. It is not ready yet.
    pub fn start<A: AsRef<OsStr>>(&self, flags: impl IntoIterator<Item = A>) -> io::Result<AgentProcess> {
        self.spawn(self.node.command(&self.binary), flags)
    }

    /// As [`start`](Self::start), in a time namespace of its own. `offsets` are flags of
    /// `unshare --time`.
    pub fn start_in_time<A: AsRef<OsStr>>(
        &self,
        offsets: &str,
        flags: impl IntoIterator<Item = A>,
    ) -> io::Result<AgentProcess> {
        let mut command = self.node.command("unshare");
        command
            .arg("--time")
            .args(offsets.split_whitespace())
            .arg("--")
            .arg(&self.binary);
        self.spawn(command, flags)
    }

    fn spawn<A: AsRef<OsStr>>(
        &self,
        mut command: Command,
        flags: impl IntoIterator<Item = A>,
    ) -> io::Result<AgentProcess> {
        for name in ["state", "run"] {
            // `namegate cleanup` may have removed them.
            fs::create_dir_all(self.path(name))?;
        }
        if let Some(programs) = &self.programs {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let all = std::iter::once(programs.clone()).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(all).map_err(io::Error::other)?);
        }
        let mut child = command
            .arg("agent")
            .args(&self.source)
            .args([OsStr::new("--state-dir"), self.path("state").as_os_str()])
            .args([OsStr::new("--run-dir"), self.path("run").as_os_str()])
            .args(["--http", &HTTP.to_string()])
            .args(flags)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("cannot start {}: {error}", self.binary.display()))
            })?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|stderr| read_log(stderr, Arc::clone(&log)));
        Ok(AgentProcess {
            child,
            log,
            reader,
            node: self.node.clone(),
            api: ApiClient::new(&self.path("run")),
        })
    }

    /// Runs another verb of `namegate` on the node, and waits for its end.
    pub fn namegate<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> io::Result<Output> {
        let mut command = self.node.command(&self.binary);
        command.args(arguments).stdin(Stdio::null()).output()
    }

    /// Runs `namegate cleanup` for this agent's directories, and returns what it printed.
    pub fn cleanup(&self) -> io::Result<Output> {
        let (state, run) = (self.path("state"), self.path("run"));
        let flags = [
            OsStr::new("--state-dir"),
            state.as_os_str(),
            OsStr::new("--run-dir"),
            run.as_os_str(),
        ];
        self.namegate([OsStr::new("cleanup")].into_iter().chain(flags))
    }

    /// `namegate names`, as data.
    pub fn names(&self) -> io::Result<Vec<NameRow>> {
        self.ask("names")
    }

    /// The packets of `namegate drops`, as data.
    pub fn drops(&self) -> io::Result<Vec<RecordRow>> {
        let mut rows: Vec<serde_json::Value> = self.ask("drops")?;
        rows.retain(|row| row["type"] == "flow");
        Ok(serde_json::from_value(rows.into())?)
    }

    /// The lookups of `namegate drops` that were refused, as data.
    pub fn refused_lookups(&self) -> io::Result<Vec<RefusedLookupRow>> {
        let mut rows: Vec<serde_json::Value> = self.ask("drops")?;
        rows.retain(|row| row["type"] == "lookup");
        Ok(serde_json::from_value(rows.into())?)
    }

    /// `namegate status`, as data.
    pub fn status(&self) -> io::Result<AgentStatus> {
        self.ask("status")
    }

    /// Whether the saved ledger contains `name`.
    pub fn has_saved(&self, name: &str) -> io::Result<bool> {
        self.state_holds(LEDGER_FILE, name)
    }

    /// Whether the saved objects contain `text`.
    pub fn has_kept(&self, text: &str) -> io::Result<bool> {
        Ok(self.state_holds(OBJECTS_FILE, text)? || self.state_holds(CLUSTER_FILE, text)?)
    }

    /// Whether a file of the state directory holds a text.
    pub fn state_holds(&self, file: &str, text: &str) -> io::Result<bool> {
        match fs::read(self.path("state").join(file)) {
            Ok(bytes) => Ok(bytes.windows(text.len()).any(|window| window == text.as_bytes())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs a verb that asks the running agent.
    pub fn inspect(&self, verb: &str, arguments: &[&str]) -> io::Result<Output> {
        let run = self.path("run");
        let arguments = arguments.iter().map(OsStr::new);
        self.namegate(
            [OsStr::new(verb), OsStr::new("--run-dir"), run.as_os_str()]
                .into_iter()
                .chain(arguments),
        )
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, verb: &str) -> io::Result<T> {
        let output = self.inspect(verb, &["-o", "json"])?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        serde_json::from_slice(&output.stdout).map_err(io::Error::other)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl AgentProcess {
    /// Waits until the agent calls itself ready.
    pub fn wait_ready(&mut self) -> io::Result<()> {
        let started = Instant::now();
        let mut last = String::from("it did not answer");
        while started.elapsed() < patience::scaled(PATIENCE) {
            if let Some(status) = self.child.try_wait()? {
                self.join_reader();
                return Err(io::Error::other(format!(
                    "the agent ended with {status}\n{}",
                    self.log_text()
                )));
            }
            // Not by HTTP: of two agents that overlap in an upgrade, either answers there.
            match ask(self.api.status())? {
                Ok(status) if !self.is(&status) => {}
                Ok(status) if status.ready => return Ok(()),
                Ok(status) => last = status.not_ready_because.unwrap_or_default(),
                Err(error) => last = error.to_string(),
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other(format!(
            "the agent is not ready: {last}\n{}",
            self.log_text()
        )))
    }

    /// Makes a request to the agent's HTTP listener. Returns the status and the body.
    pub fn http(&self, path: &str) -> io::Result<(u16, String)> {
        self.node.run(|| client::http(HTTP, path))?
    }

    /// The value of a metric whose line begins with `series` (name and labels as exposed); 0 when
    /// it is not there.
    pub fn metric(&self, series: &str) -> io::Result<f64> {
        let (_, text) = self.http("/metrics")?;
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok();
        Ok(text.lines().find_map(value).unwrap_or(0.0))
    }

    /// The process id: with `--supervise`, the supervisor's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether a status is this agent's.
    fn is(&self, status: &AgentStatus) -> bool {
        let supervisor = status.supervisor.map(|supervisor| supervisor.pid);
        status.pid == self.pid() || supervisor == Some(self.pid())
    }

    /// The lines that the agent has logged.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// The lines that the agent has logged at ERROR.
    pub fn errors(&self) -> Vec<String> {
        self.log().into_iter().filter(|line| line.contains("ERROR")).collect()
    }

    /// Kills the agent by SIGKILL.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.join_reader();
        Ok(())
    }

    /// Sends SIGTERM, as Kubernetes and systemd do, and waits for the agent's end.
    pub fn terminate(&mut self) -> io::Result<ExitStatus> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let started = Instant::now();
        while started.elapsed() < patience::scaled(PATIENCE) {
            if let Some(status) = self.child.try_wait()? {
                self.join_reader();
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other(format!("the agent does not end\n{}", self.log_text())))
    }

    fn log_text(&self) -> String {
        self.log().join("\n")
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.kill();
    }
}

/// Whether this process is root and may build labs.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds a program as a shell would.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(name))
        .find(|file| is_file(file))
}

/// Runs `command`. When it fails, the error contains its standard error.
pub fn succeed(command: &mut Command) -> io::Result<Output> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{command:?} ended with {}: {said}",
        output.status
    )))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file())
}

fn read_log(stderr: ChildStderr, log: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            log.lock().push(line);
        }
    })
}
