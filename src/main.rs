//! The `leveret` binary: arguments, configuration, server, exit code.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use leveret::cli::{Cli, Command, Serve};
use leveret::config::{Config, ConfigError, Loaded};
use leveret::logging;
use leveret::password;
use leveret::server::{Server, Signals};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let unable = match &cli.command {
        Some(Command::Check { .. } | Command::Repair { .. }) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    };
    let done = match cli.command {
        None => configure(&cli.serve)
            .map_err(|e| e.to_string())
            .and_then(|c| serve(c).map_err(|e| e.to_string())),
        Some(Command::Ping {
            amqp,
            config,
            timeout,
        }) => ping(amqp, config, Duration::from_secs(timeout)),
        Some(Command::Perf(options)) => leveret::perf::run(&options)
            .map(|()| true)
            .map_err(|e| e.to_string()),
        Some(Command::HashPassword) => hash_password().map_err(|e| e.to_string()),
        Some(Command::Check {
            dir,
            definitions_only,
        }) => leveret::offline::check(&dir, definitions_only).map_err(|e| e.to_string()),
        Some(Command::Repair { dir }) => leveret::offline::repair(&dir).map_err(|e| e.to_string()),
        Some(Command::CheckConfig { config }) => configure(&Serve {
            config,
            ..Serve::default()
        })
        .map_err(|e| e.to_string())
        .and_then(|c| check_config(&c).map_err(|e| e.to_string())),
    };
    let error = done.as_ref().err().map(|e| format!("leveret: {e}"));
    logging::finish(error.as_deref());
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) => unable,
    }
}

fn configure(serve: &Serve) -> Result<Loaded, ConfigError> {
    // An empty variable is none.
    let file = serve.config.as_ref().filter(|f| !f.is_empty());
    let mut loaded = Config::load(file.map(Path::new), std::env::vars_os())?;
    let config = &mut loaded.config;
    if let Some(dir) = &serve.data_dir {
        config.data_dir = dir.display().to_string();
    }
    for (given, setting) in [
        (&serve.amqp, &mut config.listeners.amqp),
        (&serve.amqps, &mut config.listeners.amqps),
        (&serve.prometheus, &mut config.listeners.prometheus),
    ] {
        if !given.is_empty() {
            setting.clone_from(given);
        }
    }
    if let Some(level) = &serve.log_level {
        config.log.level.clone_from(level);
    }
    config.check()?;
    Ok(loaded)
}

/// Says all that a start would say, but for what only a start can know: the data and the ports.
fn check_config(loaded: &Loaded) -> std::io::Result<bool> {
    // What is skipped in a definitions file is told as a log line.
    logging::start(&loaded.config.log)?;
    tell_strange(&loaded.strange);
    Server::check(&loaded.config)?;
    writeln!(std::io::stdout(), "the configuration is good")?;
    Ok(true)
}

fn tell_strange(names: &[String]) {
    for name in names {
        tracing::warn!(
            name,
            "a variable of the environment that is no setting of Leveret's"
        );
    }
}

fn serve(loaded: Loaded) -> std::io::Result<bool> {
    let Loaded { config, strange } = loaded;
    logging::start(&config.log)?;
    tell_strange(&strange);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.worker_threads > 0 {
        runtime.worker_threads(config.worker_threads);
    }
    let runtime = runtime.enable_all().build()?;
    let done = runtime.block_on(run(config));
    // What still runs has nothing to say any more: connections that did not close, or a recovery that
    // is as good as new after any interruption.
    runtime.shutdown_background();
    done
}

async fn run(config: Config) -> std::io::Result<bool> {
    let mut signals = Signals::receive()?;
    // Recovery does not wait for anything, so it would not hear a signal.
    let started = tokio::spawn(Server::start(config));
    let server = tokio::select! {
        server = started => server.map_err(std::io::Error::other)??,
        () = signals.stop() => {
            tracing::info!("stopped during the start");
            return Ok(true);
        }
    };
    for (protocol, addresses) in [
        ("amqp", &server.amqp),
        ("amqps", &server.amqps),
        ("prometheus", &server.prometheus),
    ] {
        for address in addresses {
            tracing::info!(%address, "listening for {protocol}");
        }
    }
    tracing::info!("Server startup complete");
    server.run(&mut signals).await
}

fn ping(
    amqp: Option<SocketAddr>,
    config: Option<OsString>,
    timeout: Duration,
) -> Result<bool, String> {
    let (address, tls) = match amqp {
        Some(address) => (address, false),
        None => {
            let serve = Serve {
                config,
                ..Serve::default()
            };
            let loaded = configure(&serve).map_err(|e| e.to_string())?;
            let listener = leveret::ping::listener(&loaded.config);
            listener.ok_or("no listener is configured")?
        }
    };
    leveret::ping::ping(address, tls, timeout).map_err(|e| format!("{address}: {e}"))?;
    writeln!(std::io::stdout(), "pong").map_err(|e| e.to_string())?;
    Ok(true)
}

fn hash_password() -> std::io::Result<bool> {
    let mut password = Vec::new();
    if std::io::stdin().is_terminal() {
        password::prompt(&mut password)?;
    } else {
        std::io::stdin().read_to_end(&mut password)?;
    }
    let password = password::without_line_end(&password);
    if password.is_empty() {
        return Err(std::io::Error::other("an empty password never logs in"));
    }
    writeln!(std::io::stdout(), "{}", password::hash(password))?;
    Ok(true)
}
