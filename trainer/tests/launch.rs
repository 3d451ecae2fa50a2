//! Several processes on loopback: the store, barriers, and as much of XLA's CPU plugin as there is.

use coda_pjrt::{
    Client, ClientOptions, CompileOptions, Device, ErrorCode, KeyValueStore, MemoryStore, Plugin,
    PluginKind, discover,
};
use coda_trainer::launch::{Group, Launch, LaunchError, RemoteStore, Source, StoreServer};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::Arc,
    thread,
    time::Duration,
};

/// Nothing here takes that long; it only has to end.
const LONG: Duration = Duration::from_mins(1);

fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn served(count: usize) -> (StoreServer, Arc<MemoryStore>, String) {
    let store = Arc::new(MemoryStore::default());
    let server = StoreServer::start(loopback(), Arc::clone(&store), count).expect("it serves");
    let address = server.address().to_string();
    (server, store, address)
}

#[test]
fn what_one_process_sets_the_others_get() {
    let (_server, own, address) = served(3);
    let one = RemoteStore::connect(&address, 1, 3, LONG).expect("process 1");
    let two = RemoteStore::connect(&address, 2, 3, LONG).expect("process 2");
    assert_eq!(two.try_get(b"a").expect("reachable"), None);
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    thread::scope(|scope| {
        // A request that waits holds up no other of its process.
        let waiting = scope.spawn(|| two.get(b"late", LONG));
        two.put(b"a\0", &large).expect("reachable");
        assert!(one.get(b"a\0", LONG).expect("there") == large);
        assert!(own.try_get(b"a\0").expect("there").as_deref() == Some(&large));
        one.put(b"late", b"").expect("reachable");
        assert_eq!(waiting.join().expect("no panic").expect("it came"), b"");
    });
    let error = one.get(b"never", Duration::from_millis(5)).expect_err("nobody sets it");
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert!(error.message.contains("never"), "{error}");
}

#[test]
fn processes_that_do_not_belong_are_refused() {
    let (_server, _, address) = served(3);
    let refused = |process, count| {
        RemoteStore::connect(&address, process, count, LONG).err().expect("refused")
    };
    let _one = RemoteStore::connect(&address, 1, 3, LONG).expect("process 1");
    assert_eq!(refused(1, 3).message, "there are two processes 1");
    assert_eq!(refused(1, 4).message, "process 0 waits for 3 processes, not for 4");
    assert_eq!(refused(0, 3).code, ErrorCode::InvalidArgument);
    assert_eq!(refused(3, 3).code, ErrorCode::InvalidArgument);
}

#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let (_server, _, address) = served(2);
    let one = RemoteStore::connect(&address, 1, 2, LONG).expect("process 1");
    let mut greeted = b"CODAKV\x01\0".to_vec();
    greeted.extend([2, 0, 0, 0, 1, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
    let endless = [&greeted[..], &[1; 9], &[0xff; 8]].concat();
    for garbage in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &greeted, &endless, b""] {
        let mut connection = TcpStream::connect(&address).expect("it listens");
        connection.set_read_timeout(Some(LONG)).expect("set");
        connection.write_all(garbage).expect("sent");
        connection.shutdown(std::net::Shutdown::Write).expect("said all");
        let mut answer = Vec::new();
        // At most a refusal comes back, and then the end. A reset is an end too.
        let _ = connection.read_to_end(&mut answer);
        assert!(answer.len() < 100, "{answer:?}");
    }
    one.put(b"still", b"there").expect("reachable");
    assert_eq!(one.try_get(b"still").expect("reachable").as_deref(), Some(&b"there"[..]));
}

#[test]
fn a_store_that_is_gone_or_never_came_is_an_error() {
    let (server, _, address) = served(2);
    let one = RemoteStore::connect(&address, 1, 2, LONG).expect("process 1");
    one.put(b"a", b"b").expect("reachable");
    drop(server);
    assert_eq!(one.put(b"a", b"c").expect_err("gone").code, ErrorCode::Unavailable);
    let error = RemoteStore::connect(&address, 1, 2, Duration::from_millis(50));
    let error = error.err().expect("nobody listens");
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert!(error.message.contains("cannot reach process 0"), "{error}");
}

fn launch(process: usize, count: usize, address: &str) -> Launch {
    let coordinator = Some(address.to_owned());
    Launch { process, count, coordinator, source: Source::CommandLine }
}

#[test]
fn a_barrier_that_somebody_misses_names_who() {
    let listener = loopback();
    let address = listener.local_addr().expect("bound").to_string();
    let short = Duration::from_millis(30);
    let error = Group::host(launch(0, 2, &address), listener, short).err().expect("alone");
    assert!(matches!(error, LaunchError::Meeting { .. }));
    assert!(error.to_string().contains("process 1 did not come"), "{error}");
}

#[test]
fn a_process_that_is_alone_needs_nobody() {
    let group = Group::join(Launch::alone(), Duration::ZERO).expect("alone");
    group.barrier("end", Duration::ZERO).expect("alone");
    group.store().put(b"a", b"b").expect("reachable");
}

/// Three groups that have met, in threads of one process.
fn met() -> Vec<Group> {
    let listener = loopback();
    let address = listener.local_addr().expect("bound").to_string();
    thread::scope(|scope| {
        let others: Vec<_> = (1..3)
            .map(|process| {
                let launch = launch(process, 3, &address);
                scope.spawn(|| Group::join(launch, LONG).expect("they meet"))
            })
            .collect();
        let first = Group::host(launch(0, 3, &address), listener, LONG).expect("they meet");
        [first].into_iter().chain(others.into_iter().map(|o| o.join().expect("joined"))).collect()
    })
}

#[test]
fn rounds_carry_what_every_process_gives_in_their_order() {
    // Longer than a piece of a message, and than what the wire takes at once.
    let long: Vec<u8> = (0..9_000_000_u32).flat_map(|i| (i * 7).to_le_bytes()).collect();
    let groups = met();
    thread::scope(|scope| {
        for (process, group) in groups.iter().enumerate() {
            let long = &long;
            scope.spawn(move || {
                let word = |at: usize| [b"one", &b"two"[..], b""][at].to_vec();
                let all = group.exchange("words", &word(process)).expect("a round");
                assert_eq!(all, [word(0), word(1), word(2)]);
                let own = if process == 2 { &long[..] } else { b"x" };
                let gathered = group.gather("pieces", own).expect("a round");
                assert_eq!(gathered.is_some(), process == 0);
                let right = [&b"x"[..], b"x", long];
                assert!(gathered.is_none_or(|parts| parts == right));
                let value = |value: &str| vec![("seed".to_owned(), value.to_owned())];
                group.agree("the run", &value("1")).expect("they agree");
                let error = group.agree("the run", &value(["1", "1", "2"][process]));
                let error = error.expect_err("process 2 has another").to_string();
                assert!(error.contains("process 2 has seed 2, process 0 seed 1"), "{error}");
                group.barrier("end", LONG).expect("all come");
            });
        }
    });
}

#[test]
fn a_round_ends_when_a_process_fails_ends_or_is_elsewhere() {
    let mut groups = met();
    let last = groups.pop().expect("three");
    last.fail("its disk is full");
    for group in &groups {
        let error = group.exchange("step", b"").expect_err("one has failed").to_string();
        assert!(error.contains("at `step`: process 2: its disk is full"), "{error}");
    }
    let mut groups = met();
    drop(groups.pop());
    let error = groups[0].gather("step", b"");
    drop(groups);
    // Nothing of process 1 either, which comes first.
    assert!(error.expect_err("one has ended").to_string().contains("process 2 has ended"));
    let groups = met();
    assert_eq!(groups[1].gather("step", b"").expect("sent"), None);
    let error = groups[0].gather("save", b"").expect_err("elsewhere").to_string();
    assert!(error.contains("at `save`: process 1 is at `step`"), "{error}");
}

/// `I ADDRESS` for the processes that the next test starts.
const INNER: &str = "CODA_TEST_PROCESS";
const COUNT: usize = 3;

/// What every process does: its own client with its place, everybody's device ids through the
/// store, one program on its own devices, and everybody's results.
fn work(group: &Group) {
    let Launch { process, count, .. } = *group.launch();
    let path = discover(None, PluginKind::Cpu)
        .unwrap_or_else(|error| panic!("{error}\nhint: {}", error.hint().unwrap_or_default()));
    let plugin = Plugin::load(path).expect("the plugin loads");
    let mut options = group.launch().client_options(PluginKind::Cpu);
    options.push(("cpu_device_count".to_owned(), 2_i64.into()));
    let client = Client::new(&plugin, &ClientOptions { options, store: Some(group.store()) })
        .expect("a client");
    assert_eq!(client.process_index(), i64::try_from(process).expect("few"));

    let ids: Vec<i64> = client.addressable_devices().iter().map(Device::id).collect();
    let store = group.store();
    let key = |what: &str, process: usize| format!("{what}/{process}").into_bytes();
    store.put(&key("ids", process), format!("{ids:?}").as_bytes()).expect("reachable");
    let all: Vec<String> = (0..count)
        .map(|process| {
            String::from_utf8(store.get(&key("ids", process), LONG).expect("it comes"))
                .expect("text")
        })
        .collect();
    assert_eq!(all, ["[0, 1]", "[2048, 2049]", "[4096, 4097]"]);

    let text = "module { func.func @main(%x: tensor<f32>) -> tensor<f32> {
        %y = stablehlo.multiply %x, %x : tensor<f32>
        return %y : tensor<f32> } }";
    let options = CompileOptions { device_ids: vec![ids[1]], ..CompileOptions::default() };
    let executable = client.compile(text, &options).expect("its own device");
    let device = &executable.addressable_devices()[0];
    assert_eq!(device.id(), ids[1]);
    let value = f32::from(u8::try_from(process).expect("few")) + 1.0;
    let x = client.upload(device, &[value], &[]).expect("uploaded");
    let outputs = executable.execute(&[vec![&x]]).expect("it runs");
    let square = outputs[0][0].download::<f32>().expect("downloaded")[0];
    store.put(&key("square", process), &square.to_le_bytes()).expect("reachable");
    let squares: Vec<f32> = (0..count)
        .map(|process| {
            let bytes = store.get(&key("square", process), LONG).expect("it comes");
            f32::from_le_bytes(bytes.try_into().expect("four bytes"))
        })
        .collect();
    assert_eq!(squares, [1.0, 4.0, 9.0]);
    group.barrier("end", LONG).expect("all come");
}

#[test]
fn three_processes_meet_each_with_its_own_devices() {
    if let Ok(told) = std::env::var(INNER) {
        let (process, address) = told.split_once(' ').expect("two words");
        let process = process.parse().expect("a number");
        work(&Group::join(launch(process, COUNT, address), LONG).expect("they meet"));
        return;
    }
    let listener = loopback();
    let address = listener.local_addr().expect("bound").to_string();
    let others: Vec<Child> = (1..COUNT)
        .map(|process| {
            Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "three_processes_meet_each_with_its_own_devices"])
                .env(INNER, format!("{process} {address}"))
                .spawn()
                .expect("started")
        })
        .collect();
    let group = Group::host(launch(0, COUNT, &address), listener, LONG).expect("they meet");
    work(&group);
    for mut other in others {
        assert!(other.wait().expect("it ends").success());
    }
}
