//! A thread inside a namespace that drives futures.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Namespace, context};

/// A thread inside a namespace, with a current-thread tokio runtime. A drop cancels what was
/// spawned on it at its next await, and joins the thread.
///
/// Sockets that a spawned future opens belong to the namespace, and so do threads that it starts
/// (tokio's blocking threads among them, which `lookup_host` uses).
#[derive(Debug)]
pub struct NamespaceThread {
    runtime: tokio::runtime::Handle,
    // Both are `Some` until the drop, which takes them.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl NamespaceThread {
    pub(super) fn start(namespace: &Namespace, name: &str) -> io::Result<Self> {
        let namespace = namespace.clone();
        let (started, start) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = match namespace.enter().and_then(|()| current_thread_runtime()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    // It cannot fail, because the receiver waits for exactly one message.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(runtime.handle().clone()));
            // The drop of the sender is the signal, and arrives as an error.
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

    /// Runs a future on the thread, and waits for it. A panic of the future becomes an error.
    ///
    /// It blocks, so that asynchronous code must not call it.
    pub fn run<F>(&self, future: F) -> io::Result<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let (done, result) = mpsc::sync_channel(1);
        self.spawn(async move {
            // The receiver lives as long as the caller waits.
            let _ = done.send(future.await);
        });
        result
            .recv()
            .map_err(|_| io::Error::other("the work inside the namespace panicked or was cancelled"))
    }
}

impl Drop for NamespaceThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has printed a panic of the thread, and nothing is to be undone.
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
