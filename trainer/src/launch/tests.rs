use super::*;

fn resolve(variables: &[(&str, &str)]) -> Result<Launch, LaunchError> {
    Launch::resolve(None, None, &|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

fn found(variables: &[(&str, &str)]) -> (usize, usize, Option<String>, Source) {
    let launch = resolve(variables).expect("a launch");
    (launch.process, launch.count, launch.coordinator, launch.source)
}

/// The name that an error names.
fn refused(variables: &[(&str, &str)]) -> &'static str {
    match resolve(variables).expect_err("refused") {
        LaunchError::Setting { name, .. } => name,
        other => panic!("{other}"),
    }
}

fn typed(process: &str, coordinator: Option<&str>) -> Result<Launch, LaunchError> {
    Launch::resolve(Some(process), coordinator, &|_| None)
}

const SLURM: [(&str, &str); 5] = [
    ("SLURM_PROCID", "5"),
    ("SLURM_STEP_NUM_TASKS", "8"),
    ("SLURM_NTASKS", "16"),
    ("SLURM_STEP_NODELIST", "gpu[03-04],login"),
    ("SLURM_JOB_ID", "8200"),
];
const RANKS: [(&str, &str); 4] =
    [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "::1"), ("MASTER_PORT", "29500")];
const TPU: [(&str, &str); 2] =
    [("TPU_WORKER_ID", "1"), ("TPU_WORKER_HOSTNAMES", "10.0.0.1, 10.0.0.2")];
const KUBERNETES: [(&str, &str); 3] = [
    ("JOB_COMPLETION_INDEX", "2"),
    ("CODA_PROCESS_COUNT", "3"),
    ("CODA_COORDINATOR", "job-0.job:4700"),
];

#[test]
fn with_nothing_set_a_process_is_alone() {
    assert_eq!(resolve(&[]).expect("alone"), Launch::alone());
    assert_eq!(resolve(&[("RANK", ""), ("SLURM_PROCID", "3")]).expect("alone"), Launch::alone());
}

#[test]
fn the_command_line_says_it_outright() {
    let launch = typed("1/4", Some("host:4700")).expect("complete");
    assert_eq!((launch.process, launch.count), (1, 4));
    assert_eq!(launch.coordinator.as_deref(), Some("host:4700"));
    assert_eq!(typed("0/1", None).expect("alone").count, 1);
    let over =
        Launch::resolve(Some("0/2"), Some("h:1"), &|name| Some(format!("{name} is ignored")));
    assert_eq!(over.expect("complete").source, Source::CommandLine);
}

#[test]
fn each_launcher_is_understood() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(found(&SLURM), (5, 8, some("gpu03:61448"), Source::Slurm));
    assert_eq!(found(&RANKS), (1, 2, some("[::1]:29500"), Source::Ranks));
    assert_eq!(found(&TPU), (1, 2, some("10.0.0.1:8476"), Source::TpuVm));
    assert_eq!(found(&KUBERNETES), (2, 3, some("job-0.job:4700"), Source::Kubernetes));
    let one = [("TPU_WORKER_ID", "0"), ("TPU_WORKER_HOSTNAMES", "localhost")];
    assert_eq!(found(&one), (0, 1, None, Source::TpuVm));
}

#[test]
fn the_innermost_launcher_counts() {
    assert_eq!(found(&[&RANKS[..], &SLURM].concat()).3, Source::Ranks);
    assert_eq!(found(&[&SLURM[..], &TPU].concat()).3, Source::Slurm);
    assert_eq!(found(&[&KUBERNETES[..], &TPU].concat()).3, Source::TpuVm);
}

#[test]
fn an_error_names_the_variable_that_is_wrong() {
    let without = |all: &[(&'static str, &'static str)], name: &str| {
        all.iter().copied().filter(|(known, _)| *known != name).collect::<Vec<_>>()
    };
    let with = |all: &[(&'static str, &'static str)], name: &'static str, value| {
        [without(all, name), vec![(name, value)]].concat()
    };
    assert_eq!(refused(&with(&SLURM, "SLURM_PROCID", "8")), "SLURM_PROCID");
    assert_eq!(refused(&with(&SLURM, "SLURM_STEP_NUM_TASKS", "x")), "SLURM_STEP_NUM_TASKS");
    assert_eq!(refused(&with(&SLURM, "SLURM_STEP_NODELIST", "a[")), "SLURM_STEP_NODELIST");
    assert_eq!(refused(&without(&SLURM, "SLURM_JOB_ID")), "SLURM_JOB_ID");
    for name in ["WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"] {
        assert_eq!(refused(&without(&RANKS, name)), name);
    }
    assert_eq!(refused(&with(&RANKS, "MASTER_PORT", "70000")), "MASTER_PORT");
    assert_eq!(refused(&with(&RANKS, "WORLD_SIZE", "0")), "WORLD_SIZE");
    assert_eq!(refused(&without(&TPU, "TPU_WORKER_HOSTNAMES")), "TPU_WORKER_HOSTNAMES");
    assert_eq!(refused(&with(&TPU, "TPU_WORKER_HOSTNAMES", "a,,b")), "TPU_WORKER_HOSTNAMES");
    assert_eq!(refused(&with(&TPU, "TPU_WORKER_ID", "2")), "TPU_WORKER_ID");
    assert_eq!(refused(&with(&TPU, "MEGASCALE_NUM_SLICES", "2")), "MEGASCALE_NUM_SLICES");
    assert_eq!(refused(&without(&KUBERNETES, "CODA_PROCESS_COUNT")), "CODA_PROCESS_COUNT");
    assert_eq!(refused(&with(&KUBERNETES, "CODA_COORDINATOR", "host")), "CODA_COORDINATOR");
}

#[test]
fn a_mistyped_command_line_is_refused_with_a_hint() {
    for (process, coordinator) in [
        ("4/4", Some("h:1")),
        ("0/0", None),
        ("1", Some("h:1")),
        ("a/b", Some("h:1")),
        ("0/2", None),
        ("0/2", Some("h")),
        ("0/2", Some(":1")),
        ("0/2", Some("h:0")),
    ] {
        let error = typed(process, coordinator).expect_err(process);
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    }
    assert!(Launch::resolve(None, Some("h:1"), &|_| None).is_err());
}

#[test]
fn plugins_are_told_their_place_in_their_own_words() {
    let launch = typed("1/4", Some("host:4700")).expect("complete");
    let names = |kind| {
        let options = launch.client_options(kind);
        options.into_iter().map(|(name, value)| format!("{name} {value:?}")).collect::<Vec<_>>()
    };
    assert_eq!(names(PluginKind::Gpu), ["node_id Int(1)", "num_nodes Int(4)"]);
    assert_eq!(names(PluginKind::Cpu), ["process_id Int(1)"]);
    assert!(names(PluginKind::Tpu).is_empty());
    assert!(Launch::alone().client_options(PluginKind::Gpu).is_empty());
}
