//! Connections: accepted, limited, and ended in good order.

use crate::{
    Options,
    app::{App, now, routes},
    metrics::Metrics,
    scheduler::{Load, Scheduler},
};
use coda_cli::{Exit, Failure};
use coda_trainer::sample::SamplingModel;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Bytes of a request's head.
const HEAD: usize = 64 << 10;

/// Serves until a signal comes.
pub(crate) fn serve(options: &Options) -> Result<Exit, Failure> {
    options.check()?;
    let key = options.api_key()?;
    let model = Arc::new(SamplingModel::open(&options.checkpoint)?);
    let metrics = Arc::new(Metrics::default());
    let load = Load {
        rows: options.max_rows,
        queue: options.max_queue,
        tokens: options.max_rows.saturating_mul(options.max_context),
    };
    let name = options.model.clone().unwrap_or_else(|| {
        let given = options.checkpoint.file_name();
        given.map_or_else(|| "coda".to_owned(), |name| name.to_string_lossy().into_owned())
    });
    if key.is_none() && !options.listen.ip().is_loopback() {
        eprintln!("no API key is set, and {} is not a loopback address", options.listen);
    }
    let app = Arc::new(App {
        scheduler: Scheduler::start(
            Arc::clone(&model),
            options.engine,
            load,
            Arc::clone(&metrics),
        )?,
        model,
        name,
        options: options.clone(),
        key: key.map(|key| blake3::hash(key.as_bytes())),
        metrics,
        stopping: AtomicBool::new(false),
        count: AtomicU64::new(0),
        started: now(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::io(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(listen(app))
}

async fn listen(app: Arc<App>) -> Result<Exit, Failure> {
    let address = app.options.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::io(format!("cannot listen on {address}: {error}"))
            .hint("choose another address with --listen")
    })?;
    let address = listener.local_addr().unwrap_or(address);
    eprintln!("{} at http://{address}", app.name);
    let signal = |kind| {
        signal(kind).map_err(|error| Failure::io(format!("cannot wait for a signal: {error}")))
    };
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(app.options.max_connections));
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            accepted = place(&listener, &places) => {
                let Ok((stream, place)) = accepted else {
                    // Out of file descriptors, mostly: others will end.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let connection = connection(&app, stream);
                let watched = graceful.watch(connection);
                // A client that reads nothing must not hold a connection for ever.
                let longest = 4 * app.options.time_limit();
                tokio::spawn(async move {
                    // Clients end connections as they like; there is nobody to tell.
                    let _ = timeout(longest, watched).await;
                    drop(place);
                });
            }
        }
    }
    app.stopping.store(true, Ordering::Relaxed);
    let held = app.scheduler.held();
    eprintln!("stopping: {held} rows are waiting or running");
    let grace = Duration::from_secs(app.options.grace);
    // What is connected is answered, and refused if it asks for more; nobody new is let in.
    drop(listener);
    match timeout(grace, graceful.shutdown()).await {
        Ok(()) => Ok(Exit::Done),
        Err(_) => Err(Failure::check_failed(format!(
            "{} rows were unanswered after {} seconds",
            app.scheduler.held(),
            grace.as_secs()
        ))),
    }
}

/// A connection, when there is a place for it.
async fn place(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

type Service = TowerToHyperService<axum::Router>;

fn connection(app: &Arc<App>, stream: TcpStream) -> http1::Connection<TokioIo<TcpStream>, Service> {
    // Events are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(app.options.read_timeout))
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes(Arc::clone(app))))
}
