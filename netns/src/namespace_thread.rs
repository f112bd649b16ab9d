//! A thread that lives in a namespace and drives futures there.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Namespace, context};

/// A thread inside a namespace with a current-thread tokio runtime, which drives what is spawned on
/// it. Dropping it cancels all of that at its next await, and joins the thread.
///
/// Sockets that a spawned future opens belong to the namespace, and so do threads that it starts
/// (tokio's blocking threads among them, which `lookup_host` uses).
#[derive(Debug)]
pub struct Resident {
    runtime: tokio::runtime::Handle,
    // Both are `Some` until the drop.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Resident {
    pub(super) fn start(namespace: &Namespace, name: &str) -> io::Result<Self> {
        let namespace = namespace.clone();
        let (started, start) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = match namespace.enter().and_then(|()| current_thread_runtime()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    // The receiver waits for exactly one message.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(runtime.handle().clone()));
            // An error means that the sender was dropped, which is the signal too.
            let _ = runtime.block_on(stopped);
        })?;
        let runtime = start
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended before it began")))?;
        Ok(Self {
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Starts a future on the thread, and returns at once.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.runtime.spawn(future)
    }

    /// Runs a future on the thread, and waits for it. Not to be called from asynchronous code,
    /// which it would block.
    ///
    /// A panic of the future becomes an error.
    pub fn run<F>(&self, future: F) -> io::Result<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let (done, result) = mpsc::sync_channel(1);
        self.spawn(async move {
            // The receiver is only gone when the caller is.
            let _ = done.send(future.await);
        });
        result
            .recv()
            .map_err(|_| io::Error::other("the work inside the namespace panicked or was cancelled"))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic inside was printed by the panic hook, and there is nothing to undo here.
            let _ = thread.join();
        }
    }
}

/// A runtime that stays on the calling thread, and so in its namespace.
pub(super) fn current_thread_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| context(error, "cannot start an asynchronous runtime"))
}
