//! The policy for what a Pod was seen to do, ready to copy.

use api::{SuggestionAnswer, SuggestionQuestion};
use maud::html;

use crate::layout::{PageFrame, choice, lines};

/// The page: a question, and the answer where one was asked.
pub fn page(
    frame: PageFrame<'_>,
    question: &SuggestionQuestion,
    answer: Option<&Result<SuggestionAnswer, String>>,
) -> String {
    let mut pods: Vec<&str> = frame.status.endpoints.iter().map(|row| row.endpoint.as_str()).collect();
    pods.sort_unstable();
    let content = html! {
        form.filter method="get" action="/web/suggestion" {
            (choice("pod", "Pod", &question.pod, &pods))
            (choice("from", "From what was", &question.from, &["audited", "refused", "all"]))
            button type="submit" { "Suggest" }
        }
        @match answer {
            None => p { "Choose a Pod: of what it was seen to do, a policy is made and proved." },
            Some(Err(why)) => p.bad { (why) },
            Some(Ok(answer)) => {
                p {
                    "Of " (answer.events) " events."
                    @if answer.lost > 0 { " " span.bad { (answer.lost) " events are not remembered." } }
                    " " button type="button" data-copy="policy" hidden { "Copy" }
                }
                @if !answer.not_allowed.is_empty() {
                    div.card { p.bad { "Still refused with it in force:" } (lines(&answer.not_allowed)) }
                }
                pre #policy { (answer.policy) }
            }
        }
    };
    frame.page("/web/suggestion", &content)
}

#[cfg(test)]
mod tests {
    use api::examples;

    use super::*;

    #[test]
    fn a_suggestion_is_shown_with_what_it_leaves_refused_and_an_error_as_it_is() {
        let status = examples::status(None);
        let frame = PageFrame { status: &status };
        let question = SuggestionQuestion {
            pod: "shop/api".into(),
            from: "all".into(),
            ..SuggestionQuestion::default()
        };
        let answer = SuggestionAnswer {
            policy: "kind: CiliumNetworkPolicy".into(),
            events: 12,
            not_allowed: vec!["25/TCP to 192.0.2.25".into()],
            lost: 0,
        };
        let text = page(frame, &question, Some(&Ok(answer)));
        for part in [
            "kind: CiliumNetworkPolicy",
            "Of 12 events",
            "25/TCP to 192.0.2.25",
            "value=\"all\" selected",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        let text = page(frame, &question, Some(&Err("nothing is remembered".into())));
        assert!(text.contains("nothing is remembered"), "{text}");
    }
}
