//! Programs that mean harm. Each is run in both kinds of sandbox that the system may give.

#![cfg(target_os = "linux")]

use coda_sandbox::{End, Files, Limits, Network, Outcome, Program, Sandbox, SandboxError, Tree};
use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

/// The interpreter, by its full path: what `python3` is on the path may be a script that needs a shell.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let output = output.expect("python3 is on the path");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
});

/// Both sandboxes; where the system has no namespaces the first is like the second, which
/// `the_strong_sandbox_is_there` does not let pass unseen.
fn sandboxes() -> [Sandbox; 2] {
    let sandbox = || Sandbox::new(env!("CARGO_BIN_EXE_coda-sandbox").as_ref(), &[]);
    [sandbox(), sandbox().without_namespaces()]
}

fn program(code: &str) -> Program {
    Program {
        program: PYTHON.clone(),
        args: ["-I", "-B", "main.py"].map(str::to_owned).to_vec(),
        files: [("main.py".to_owned(), code.to_owned())].into(),
        ..Program::default()
    }
}

fn limits() -> Limits {
    Limits { wall: Duration::from_secs(20), cpu_seconds: 10, ..Limits::default() }
}

fn run(sandbox: &Sandbox, code: &str, limits: Limits) -> Outcome {
    sandbox.run(&program(code), &limits).expect("a sandbox")
}

fn text(outcome: &Outcome) -> String {
    let [out, err] = [&outcome.stdout, &outcome.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// Runs code that prints what became of its attempt.
fn says(code: &str, expected: &str) {
    for sandbox in sandboxes() {
        let outcome = run(&sandbox, code, limits());
        assert_eq!(
            (outcome.end, text(&outcome).trim()),
            (End::Exited(0), expected),
            "{:?}",
            outcome.isolation
        );
    }
}

#[test]
fn the_strong_sandbox_is_there() {
    let [strong, weak] = sandboxes().map(|sandbox| run(&sandbox, "", limits()).isolation);
    assert_eq!(
        (weak.network, weak.files, weak.tree),
        (Network::Seccomp, Files::Landlock, Tree::Reaper)
    );
    // A container may forbid namespaces; whoever runs the tests in one must say so.
    if std::env::var_os("CODA_TESTS_WITHOUT_NAMESPACES").is_none() {
        assert_eq!(
            (strong.network, strong.files, strong.tree),
            (Network::Namespace, Files::Mounts, Tree::Namespace)
        );
    }
}

#[test]
fn a_decent_program_runs_as_ever() {
    let code = "import os, sys, threading\n\
                t = threading.Thread(target=lambda: open('kept', 'w').write('5'))\n\
                t.start(); t.join()\n\
                print(sys.stdin.read(), open('kept').read(), open('given.txt').read())\n\
                print(sorted(set(os.environ) - {'LC_CTYPE'}), os.getcwd() == os.environ['HOME'])\n\
                sys.exit(7)";
    for sandbox in sandboxes() {
        let mut decent = program(code);
        decent.stdin = "hello".to_owned();
        decent.files.insert("given.txt".to_owned(), "given".to_owned());
        decent.env.insert("ONE".to_owned(), "1".to_owned());
        let outcome = sandbox.run(&decent, &limits()).expect("a sandbox");
        assert_eq!(outcome.end, End::Exited(7), "{}", text(&outcome));
        assert_eq!(text(&outcome), "hello 5 given\n['HOME', 'ONE', 'TMPDIR'] True\n");
        assert!(outcome.cpu > Duration::ZERO && outcome.resident > 1 << 20);
    }
}

#[test]
fn no_socket_opens() {
    says(
        "import socket\n\
         for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):\n\
         \x20   try:\n\
         \x20       socket.socket(family)\n\
         \x20       print('open', family)\n\
         \x20   except PermissionError:\n\
         \x20       print(end='x')",
        "xxxx",
    );
}

#[test]
fn nothing_outside_is_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let victim = folder.path().join("victim");
    fs::write(&victim, "alive").expect("a file");
    let code = format!(
        "import os, shutil\n\
         done = []\n\
         def tried(name, what):\n\
         \x20   try:\n\
         \x20       what(); done.append(name)\n\
         \x20   except OSError: pass\n\
         victim = {victim:?}\n\
         folder = os.path.dirname(victim)\n\
         tried('write', lambda: open(victim, 'w'))\n\
         tried('remove', lambda: os.remove(victim))\n\
         tried('rename', lambda: os.rename(victim, victim + '2'))\n\
         tried('create', lambda: open(folder + '/new', 'w'))\n\
         tried('rmtree', lambda: shutil.rmtree(folder))\n\
         tried('mkdir', lambda: os.mkdir('/tmp/coda-sandbox-was-here'))\n\
         tried('symlink', lambda: (os.symlink(victim, 'link'), open('link', 'w')))\n\
         tried('hard link', lambda: (os.link(victim, 'hard'), open('hard', 'w')))\n\
         tried('disk', lambda: [open('/dev/' + d, 'wb') for d in os.listdir('/dev')\n\
         \x20                  if d.startswith(('vd', 'sd', 'nvme', 'xvd', 'loop', 'mem'))][0])\n\
         print(done)"
    );
    for sandbox in sandboxes() {
        let outcome = run(&sandbox, &code, limits());
        // The list of disks is empty where /dev has none: then there is no first one.
        let said = text(&outcome);
        assert!(said.trim() == "[]" || said.contains("IndexError"), "{said}");
        assert_eq!(fs::read_to_string(&victim).expect("the victim"), "alive");
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }
}

#[test]
fn no_process_starts() {
    says(
        "import os, subprocess\n\
         for start in (os.fork, lambda: subprocess.run(['/bin/true']), lambda: os.posix_spawn('/bin/true', ['true'], {}), os.forkpty):\n\
         \x20   try:\n\
         \x20       start(); print('started')\n\
         \x20   except (OSError,) as error:\n\
         \x20       print(end='x')",
        "xxxx",
    );
}

#[test]
fn a_fork_bomb_does_not_go_off() {
    let code = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass";
    let brief = Limits { wall: Duration::from_millis(700), ..limits() };
    for sandbox in sandboxes() {
        assert_eq!(run(&sandbox, code, brief).end, End::WallTime);
    }
}

/// How many processes have `mark` in their command line.
fn running(mark: &str) -> usize {
    let named = |entry: fs::DirEntry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    fs::read_dir("/proc")
        .expect("proc")
        .filter_map(Result::ok)
        .filter(|entry| {
            entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
        })
        .map(named)
        .filter(|&found| found)
        .count()
}

/// A daemon that has forked twice, has a session of its own and ignores what can be ignored.
fn daemon(mark: &str, then: &str) -> String {
    format!(
        "import os, signal, sys, time\n\
         if os.fork() == 0:\n\
         \x20   os.setsid()\n\
         \x20   for s in range(1, 65):\n\
         \x20       try: signal.signal(s, signal.SIG_IGN)\n\
         \x20       except (OSError, ValueError): pass\n\
         \x20   if os.fork() == 0:\n\
         \x20       open('ready', 'w').close()\n\
         \x20       os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', {mark:?}])\n\
         \x20   os._exit(0)\n\
         while not os.path.exists('ready'): time.sleep(0.01)\n\
         {then}"
    )
}

#[test]
fn the_whole_tree_dies_with_the_program_and_with_the_time() {
    for (index, sandbox) in sandboxes().iter().enumerate() {
        for (then, end, wall) in [("", End::Exited(0), 20), ("time.sleep(600)", End::WallTime, 2)] {
            let wall = Duration::from_secs(wall);
            let mark = format!("coda-daemon-{}-{index}-{}", std::process::id(), then.len());
            let brief = Limits { wall, processes: Some(4096), ..limits() };
            let started = Instant::now();
            let outcome = run(sandbox, &daemon(&mark, then), brief);
            assert_eq!(outcome.end, end, "{}", text(&outcome));
            assert!(started.elapsed() < wall + Duration::from_secs(6));
            assert_eq!(running(&mark), 0);
        }
    }
}

#[test]
fn endless_output_is_cut_while_it_is_read() {
    let code = "import os\nwhile True: os.write(1, b'x' * 65536); os.write(2, b'y' * 65536)";
    for sandbox in sandboxes() {
        let started = Instant::now();
        let outcome = run(&sandbox, code, Limits { output: 1 << 20, ..limits() });
        assert_eq!(outcome.end, End::Output);
        assert!(outcome.stdout.len() + outcome.stderr.len() <= 1 << 20);
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn time_is_up_whatever_it_ignores() {
    let code = "import signal\n\
                for s in range(1, 65):\n\
                \x20   try: signal.signal(s, signal.SIG_IGN)\n\
                \x20   except (OSError, ValueError): pass\n\
                while True: pass";
    for sandbox in sandboxes() {
        let brief = Limits { wall: Duration::from_millis(600), ..limits() };
        let outcome = run(&sandbox, code, brief);
        assert_eq!(outcome.end, End::WallTime);
        // The same by the CPU's clock, which no handler stops.
        let outcome = run(&sandbox, code, Limits { cpu_seconds: 1, ..limits() });
        assert_eq!(outcome.end, End::Signalled(9), "{}", text(&outcome));
    }
}

#[test]
fn memory_files_and_descriptors_end() {
    let code = "try:\n    x = bytearray(1 << 30)\nexcept MemoryError:\n    print('memory')\n\
                import os, signal\n\
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n\
                try:\n    f = open('big', 'wb')\n    while True: f.write(b'0' * (1 << 20))\n\
                except OSError:\n    print('file', os.path.getsize('big') <= 1 << 20)\n\
                try:\n    kept = [os.dup(1) for _ in range(1000)]\nexcept OSError:\n    print('open')";
    let little = Limits { memory: 512 << 20, file: 1 << 20, open_files: 64, ..limits() };
    for sandbox in sandboxes() {
        let outcome = run(&sandbox, code, little);
        assert_eq!(text(&outcome), "memory\nfile True\nopen\n");
    }
}

#[test]
fn all_files_together_end_in_a_tmpfs() {
    let code = "try:\n    for i in range(100): open(str(i), 'wb').write(b'0' * (1 << 20))\n\
                except OSError: print('full')";
    let [strong, _] = sandboxes();
    let outcome = run(&strong, code, Limits { disk: 8 << 20, ..limits() });
    if outcome.isolation.files == Files::Mounts {
        assert_eq!(text(&outcome), "full\n");
    }
}

#[test]
fn a_crash_is_a_signal() {
    let code = "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\n\
                class A:\n    def __del__(self): pass\n\
                import ctypes\nctypes.string_at(0)";
    for sandbox in sandboxes() {
        assert_eq!(run(&sandbox, code, limits()).end, End::Signalled(11));
    }
}

#[test]
fn other_processes_are_out_of_reach() {
    let me = std::process::id();
    let code = format!(
        "import os, signal, ctypes\n\
         for pid in ({me}, 1, -1, os.getppid()):\n\
         \x20   try:\n\
         \x20       os.kill(pid, signal.SIGTERM); print('sent', pid)\n\
         \x20   except (PermissionError, ProcessLookupError): print(end='x')\n\
         libc = ctypes.CDLL(None)\n\
         print(libc.ptrace(16, {me}, 0, 0), libc.unshare(0x10000000), libc.umount2(os.environ['HOME'].encode(), 2))\n\
         try: print(len(open('/proc/{me}/environ').read()))\n\
         except OSError: print('hidden')"
    );
    let [strong, weak] = sandboxes();
    let outcome = run(&strong, &code, limits());
    if outcome.isolation.tree == Tree::Namespace {
        assert_eq!(text(&outcome), "xxxx-1 -1 -1\nhidden\n");
    }
    // Without namespaces a program sees who else is there.
    assert!(text(&run(&weak, &code, limits())).starts_with("xxxx-1 -1 -1\n"));
}

#[test]
fn what_cannot_run_says_so() {
    let [sandbox, _] = sandboxes();
    let mut wrong = program("");
    wrong.program = PathBuf::from("/no/such/python");
    let error = sandbox.run(&wrong, &limits()).expect_err("no program");
    assert!(matches!(error, SandboxError::Unable { .. }), "{error}");
    assert!(error.to_string().contains("/no/such/python"), "{error}");
    let mut wrong = program("");
    wrong.files.insert("../escape".to_owned(), String::new());
    let error = sandbox.run(&wrong, &limits()).expect_err("no file name");
    assert!(error.to_string().contains("not a plain file name"), "{error}");
    let nobody = Sandbox::new("/no/launcher".as_ref(), &[]);
    let error = nobody.run(&program(""), &limits()).expect_err("no launcher");
    assert!(matches!(error, SandboxError::Launcher { .. }), "{error}");
}
