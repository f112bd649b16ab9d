//! What a hostile command tries in order to reach what is outside its sandbox. Needs `cc`,
//! `setpriv` and `script` besides.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::{Host, kill_and_wait, stdout};

/// A user whom nothing belongs to.
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

#[test]
fn keystrokes_cannot_be_pushed_into_the_terminal() {
    let host = Host::new();
    let inner = format!(
        "{} exec --quiet -- {} keystrokes",
        env!("CARGO_BIN_EXE_namegate"),
        probe()
    );
    let mut script = host.lab.node().command("script");
    script.args(["-qec", &inner, "/dev/null"]).stdin(Stdio::null());
    let output = script.output().unwrap();
    let text = stdout(&output).replace('\r', "");
    for line in ["TIOCSTI: EPERM", "TIOCSTI with more bits: EPERM", "TIOCLINUX: EPERM"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn processes_outside_are_out_of_reach_also_for_one_of_the_same_user() {
    let host = Host::new();
    let outside = Outside::start(&format!("{NOBODY} sleep 1000"));
    let script = format!(
        "{NOBODY} {} process {}; ls /proc/{1}/fd 2>/dev/null",
        probe(),
        outside.pid()
    );
    assert_eq!(
        stdout(&host.exec(&[], &script)),
        "pidfd_open: ESRCH\npidfd_getfd: ENOSYS\nptrace: ESRCH\n"
    );
    assert_eq!(
        stdout(&host.exec(
            &[],
            "cat /proc/1/comm; cat /proc/1/environ 2>/dev/null; echo $(($$ < 10))"
        )),
        "namegate-init\n1\n"
    );
}

#[test]
fn a_socket_to_the_host_gives_no_hold_on_the_process_behind_it() {
    let host = Host::new();
    let path = host.folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let output = host.exec(&[], &format!("{} peer {}", probe(), path.display()));
    drop(listener);
    let text = stdout(&output);
    assert!(text.starts_with("connect: done\n"), "{text}");
    assert!(text.ends_with("pidfd_getfd: ENOSYS\n"), "{text}");
}

#[test]
fn signals_stay_inside() {
    let host = Host::new();
    // All three are one process group; the shell around it is outside.
    let script = format!(
        "trap 'echo reached' USR1
         {} exec --quiet -- sh -c 'kill -USR1 {}; kill -USR1 0; true'
         kill -USR1 $$",
        env!("CARGO_BIN_EXE_namegate"),
        std::process::id(),
    );
    let output = setsid(&host, &script).output().unwrap();
    assert_eq!(stdout(&output), "reached\n", "once, by the shell itself: {output:?}");
}

#[test]
fn the_kernels_own_files_cannot_be_written() {
    let host = Host::new();
    let script = r#"
        for file in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/drop_caches /proc/sysrq-trigger \
            /proc/irq/default_smp_affinity /sys/kernel/uevent_helper /sys/power/state $(find /sys/fs/cgroup -name release_agent -o \
            -name cgroup.procs 2>/dev/null | head -20); do
            # Not `: >`, which would do it.
            if [ -w "$file" ]; then echo "$file"; fi
        done
        echo 7 > /proc/self/oom_score_adj && cat /proc/self/oom_score_adj"#;
    assert_eq!(stdout(&host.exec(&[], script)), "7\n");
}

#[test]
fn devices_and_foreign_protocols_are_not_made() {
    let host = Host::new();
    let (probe, device) = (probe(), host.folder.path().join("disk"));
    let (vsock, bluetooth, smc, alg) = (40, 31, 43, 38);
    let script = format!(
        "{probe} mknod {}
         for family in {vsock} {bluetooth} {smc} {alg}; do {probe} socket $family; done
         {probe} socket 1; {probe} socket 2",
        device.display()
    );
    let refused = "socket: EAFNOSUPPORT\n".repeat(4);
    assert_eq!(
        stdout(&host.exec(&[], &script)),
        format!("mknod: EPERM\n{refused}socket: done\nsocket: done\n")
    );
}

#[test]
fn calls_that_go_around_the_filter_or_into_what_is_shared_do_not_exist() {
    let host = Host::new();
    let output = host.exec(&[], &format!("{} calls", probe()));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 6, "{output:?}");
    for line in text.lines() {
        assert!(line.ends_with(": ENOSYS"), "{text}");
    }
}

#[test]
fn shared_memory_of_the_host_is_not_there() {
    let host = Host::new();
    let key = std::process::id();
    let made = Command::new("ipcmk").args(["-M", "16"]).output().unwrap();
    let id = stdout(&made).split(": ").nth(1).unwrap().trim().to_owned();
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let line = segments
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(&*id))
        .unwrap();
    let made_key: i32 = line.split_whitespace().next().unwrap().parse().unwrap();
    let output = host.exec(&[], &format!("{} memory {made_key}", probe()));
    Command::new("ipcrm").args(["-m", &id]).status().unwrap();
    assert_eq!(stdout(&output), "shmget: ENOENT\n", "{key}");
}

#[test]
fn descriptors_are_inherited_only_when_named() {
    let host = Host::new();
    let secret = host.file("secret", "secret\n");
    let script = |flags: &str| {
        format!(
            "exec 7<{secret} 8<{secret}; exec {} exec --quiet {flags} -- sh -c 'cat <&7; cat <&8'",
            env!("CARGO_BIN_EXE_namegate")
        )
    };
    let run = |flags: &str| setsid(&host, &script(flags)).output().unwrap();
    assert_eq!(stdout(&run("")), "");
    assert_eq!(stdout(&run("--keep-fd 8")), "secret\n");
    assert_eq!(stdout(&run("--keep-fd 7 --keep-fd 8")), "secret\nsecret\n");

    let output = run("--keep-fd 9");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        super::stderr(&output).contains("descriptor 9 is not open"),
        "{output:?}"
    );
}

#[test]
fn only_capabilities_that_commands_need_are_left() {
    let host = Host::new();
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
    // SYS_CHROOT, AUDIT_WRITE, SETFCAP.
    let kept = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31_u64]
        .iter()
        .fold(0, |set, bit| set | 1 << bit);
    let output = host.exec(
        &[],
        "sed -n 's/^Cap\\(Bnd\\|Eff\\|Prm\\):.//p' /proc/self/status | sort -u",
    );
    assert_eq!(stdout(&output), format!("{kept:016x}\n"));
}

#[test]
fn ping_needs_no_capability() {
    let host = Host::new();
    let range = host.exec(&[], "cat /proc/sys/net/ipv4/ping_group_range");
    assert_eq!(
        stdout(&range).split_whitespace().collect::<Vec<_>>(),
        ["0", "2147483647"]
    );
}

#[test]
fn what_the_command_leaves_behind_ends_with_it() {
    let host = Host::new();
    let output = host.exec(&[], "sleep 1000 & setsid sleep 1000 & echo left");
    // It would wait for the end of standard output, which the two hold, for as long as they live.
    assert_eq!(stdout(&output), "left\n");
}

#[test]
fn orphans_are_reaped() {
    let host = Host::new();
    let script = "(sleep 0 & echo $! > orphan)
        orphan=$(cat orphan)
        while [ -e /proc/$orphan ]; do :; done; echo reaped";
    assert_eq!(stdout(&host.exec(&[], script)), "reaped\n");
}

#[test]
fn after_sigkill_a_command_that_became_another_user_is_gone_too() {
    let host = Host::new();
    let script = format!("{NOBODY} sh -c 'echo ready; sleep 1000 & wait'");
    kill_and_wait(host.start_ready(&[], &script));
}

/// A shell on the host that leads a process group of its own.
fn setsid(host: &Host, script: &str) -> Command {
    let mut command = host.lab.node().command("setsid");
    command.args(["--wait", "sh", "-c", script]);
    command
}

/// A process that the sandbox has nothing to do with.
struct Outside(Child);

impl Outside {
    fn start(command: &str) -> Self {
        let script = format!("exec {command}");
        Self(Command::new("sh").args(["-c", &script]).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The program of `probe.c`, built once, which any user may run.
fn probe() -> &'static str {
    static PROBE: OnceLock<String> = OnceLock::new();
    PROBE.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exec/probe.c");
        let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("exec-probe");
        // Another test process may be running it meanwhile.
        let fresh = program.with_extension(std::process::id().to_string());
        let built = Command::new("cc").arg("-o").arg(&fresh).arg(source).status().unwrap();
        assert!(built.success());
        fs::rename(&fresh, &program).unwrap();
        program.to_str().unwrap().to_owned()
    })
}
