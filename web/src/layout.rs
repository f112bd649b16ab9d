//! What all pages have in common.

use api::AgentStatus;
use maud::{DOCTYPE, Markup, html};

use crate::{SCRIPT_PATH, STYLE_PATH};

/// The pages, by their paths and titles.
const PAGES: [(&str, &str); 5] = [
    ("/", "Events"),
    ("/web/names", "Names"),
    ("/web/policies", "Policies"),
    ("/web/suggestion", "Suggestion"),
    ("/web/agent", "Agent"),
];

/// What stands above every page.
#[derive(Debug, Clone, Copy)]
pub struct PageFrame<'a> {
    /// The agent.
    pub status: &'a AgentStatus,
}

impl PageFrame<'_> {
    /// A whole page, of those at these paths.
    pub(crate) fn page(self, path: &str, content: &Markup) -> String {
        let title = PAGES
            .iter()
            .find(|(known, _)| *known == path)
            .map_or("", |(_, title)| title);
        let status = self.status;
        let whole = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " - namegate " (status.node) }
                    link rel="stylesheet" href=(STYLE_PATH);
                    script src=(SCRIPT_PATH) defer {}
                }
                body {
                    header {
                        strong { "namegate" }
                        span.node { (status.node) }
                        @match (status.ready, &status.not_ready_because) {
                            (true, _) => span.good { "ready" },
                            (false, why) => span.bad { "not ready: " (why.as_deref().unwrap_or("unknown")) },
                        }
                        nav {
                            @for (known, title) in PAGES {
                                a href=(known) aria-current=[(known == path).then_some("page")] { (title) }
                            }
                        }
                    }
                    main { (content) }
                }
            }
        };
        whole.into_string()
    }
}

/// A page that says why there is none.
pub fn problem(why: &str) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "namegate" }
                link rel="stylesheet" href=(STYLE_PATH);
            }
            body { main { p.bad { (why) } p { a href="/" { "Back" } } } }
        }
    };
    page.into_string()
}

/// A field of a form with its label.
pub(crate) fn field(name: &str, label: &str, value: &str, hint: &str) -> Markup {
    html! {
        label { span { (label) } input name=(name) value=(value) placeholder=(hint); }
    }
}

/// A choice of a form; the empty one stands for any.
pub(crate) fn choice(name: &str, label: &str, value: &str, words: &[&str]) -> Markup {
    html! {
        label {
            span { (label) }
            select name=(name) {
                @for word in words {
                    option value=(word) selected[*word == value] { @if word.is_empty() { "any" } @else { (word) } }
                }
            }
        }
    }
}

/// A cell that says on a narrow screen, where there are no columns, what it is.
pub(crate) fn cell(label: &str, content: &Markup) -> Markup {
    html! { td data-label=(label) { (content) } }
}

/// Lines of text, one below the other.
pub(crate) fn lines<T: maud::Render>(lines: impl IntoIterator<Item = T>) -> Markup {
    html! { @for line in lines { div { (line) } } }
}
