//! Conversations as scripts: what each side sends, and what the other sees of it.

mod cuts;
mod hostile;
mod http;
mod http2;
mod opaque;
mod talk;
