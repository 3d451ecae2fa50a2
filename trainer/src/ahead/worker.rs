//! The process that loads the plugin.

use super::{Answer, Compiled, Job, Target, gpu};
use coda_cli::{Exit, Failure};
use coda_pjrt::{CompileOptions, OptionValue, PjrtError, Plugin, Topology, TopologyDevice};
use std::{
    io::{Read, Write},
    time::Instant,
};

/// Reads a [`Job`] from stdin, compiles it, and writes the [`Answer`] to stdout: one line of JSON
/// each.
///
/// # Errors
/// If stdin or stdout cannot be used.
pub fn serve() -> Result<Exit, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::io(format!("cannot read the job from stdin: {error}")))?;
    let job: Job = serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("stdin is no job: {error}"))
            .hint("`coda-trainer plan --aot SLICE` is the command for people")
    })?;
    let answer = answer(&job);
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, &answer)
        .map_err(std::io::Error::from)
        .and_then(|()| writeln!(stdout))
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::io(format!("cannot write to stdout: {error}")))?;
    Ok(Exit::Done)
}

fn answer(job: &Job) -> Answer {
    let unable =
        |error: &PjrtError| Answer::Unable { message: error.to_string(), hint: error.hint() };
    let opened = Plugin::load(&job.plugin).and_then(|plugin| {
        let (name, options) = match &job.target {
            Target::Tpu => (job.topology.as_str(), Vec::new()),
            Target::Gpu { description, cards, .. } => {
                let options = [
                    ("target_config".to_owned(), OptionValue::Text(description.clone())),
                    // Slices, hosts, cards of a host.
                    ("topology".to_owned(), OptionValue::Text(format!("1x1x{cards}"))),
                ];
                ("", options.into())
            }
        };
        let topology = Topology::new(&plugin, name, &options)?;
        Ok((plugin, topology))
    });
    let (plugin, topology) = match opened {
        Ok(opened) => opened,
        Err(error) => return unable(&error),
    };
    let devices = topology.devices();
    if devices.len() < job.devices {
        return Answer::Unable {
            message: format!(
                "the mesh has {} devices, {} has {}",
                job.devices,
                job.topology,
                devices.len()
            ),
            hint: Some("choose a smaller --mesh or a larger slice".to_owned()),
        };
    }
    let options = CompileOptions {
        partitions: job.devices,
        device_ids: devices[..job.devices].iter().map(TopologyDevice::id).collect(),
        overrides: match job.target {
            Target::Tpu => Vec::new(),
            Target::Gpu { .. } => gpu::overrides(),
        },
    };
    let started = Instant::now();
    let program = match topology.compile(&job.program, &options) {
        Ok(program) => program,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let seconds = started.elapsed().as_secs_f64();
    let measured = program.memory().and_then(|memory| Ok((memory, program.serialize()?)));
    let (memory, serialized) = match measured {
        Ok(measured) => measured,
        Err(error) => return unable(&error),
    };
    let (major, minor) = plugin.api_version();
    Answer::Compiled(Compiled {
        pjrt: format!("{major}.{minor}"),
        device_kind: devices[0].kind().to_owned(),
        slice_devices: devices.len(),
        limit: match job.target {
            Target::Tpu => memory_limit(&topology),
            Target::Gpu { memory, .. } => Some(memory),
        },
        peak: memory.total(),
        arguments: memory.arguments,
        outputs: memory.outputs,
        aliased: memory.aliased,
        temporaries: memory.temporaries,
        code: memory.code,
        serialized: serialized.len() as u64,
        seconds,
    })
}

/// What libtpu says that a program may use of a device.
fn memory_limit(topology: &Topology) -> Option<u64> {
    let attributes = topology.attributes().ok()?;
    attributes.into_iter().find_map(|(name, value)| match value {
        OptionValue::Int(bytes) if name == "device_memory_bytes_limit" => u64::try_from(bytes).ok(),
        _ => None,
    })
}
