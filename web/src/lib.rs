//! The page of a running agent (`--web`): from the answers of the API to HTML. Pure.
//!
//! All is rendered here, also the rows that the live table gets: [`live.js`](SCRIPT) puts them in
//! their place and knows nothing of events. Whatever pods choose (names, paths) is escaped, because
//! text reaches a page only through `maud`. The page writes nothing.
//!
//! - [`events`]: what happens, live, with filters.
//! - [`names`]: which Pods were answered which names.
//! - [`policies`]: policies with their rules, what was found in them, and whom they select.
//! - [`suggestion`]: the policy for what a Pod was seen to do.
//! - [`health`]: how the agent is.
//! - `layout`: what all pages have in common.

pub mod events;
pub mod health;
mod layout;
pub mod names;
pub mod policies;
pub mod suggestion;

pub use layout::{PageFrame, problem};

/// The style sheet, served at [`STYLE_PATH`].
pub const STYLE: &str = include_str!("../assets/style.css");
/// The script of the live table, served at [`SCRIPT_PATH`].
pub const SCRIPT: &str = include_str!("../assets/live.js");
/// Where pages look for the style sheet.
pub const STYLE_PATH: &str = "/web/style.css";
/// Where pages look for the script.
pub const SCRIPT_PATH: &str = "/web/live.js";
/// Where the script reads events, with the query of the page.
pub const STREAM_PATH: &str = "/web/events";

/// What the pages may do in a browser: nothing comes from elsewhere, nothing inside a page runs,
/// nobody frames it.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
