//! The evaluation of the report: likelihoods by strategy, and holes that were filled to the letter.

use super::{chart::escape, data::Evaluation};
use std::fmt::Write as _;

/// Filled holes that are shown.
const SHOWN: usize = 12;

/// How the strategies are called, in the order of the method.
const STRATEGIES: [(&str, &str); 4] = [
    ("plain", "single tokens"),
    ("s1", "S1, prefix kept"),
    ("s2", "S2, suffix cut"),
    ("s3", "S3, blocks (no bound)"),
];

pub(crate) fn render(evaluation: &Evaluation) -> String {
    let mut html = "<h2>On what it has never seen</h2><h3>Likelihood of held-out rows</h3><p class=\"note\">\
                    Upper bounds, in nats a token and bits a byte, over noise levels in equal strata.</p>\
                    <div class=\"scroll\"><table><tr><th>stage</th>"
        .to_owned();
    for (_, title) in STRATEGIES {
        let _ = write!(html, "<th>{}</th>", escape(title));
    }
    html.push_str("<th>rows</th></tr>");
    for (stage, nll) in &evaluation.likelihoods {
        let _ = write!(html, "<tr><td>{}</td>", escape(stage));
        for (name, _) in STRATEGIES {
            match nll.get(name) {
                Some(nll) => {
                    let _ = write!(
                        html,
                        "<td>{:.3} / {:.3}</td>",
                        nll.nats_per_token, nll.bits_per_byte
                    );
                }
                None => html.push_str("<td>–</td>"),
            }
        }
        let rows = nll.values().next().map_or(0, |nll| nll.rows);
        let _ = write!(html, "<td>{rows}</td></tr>");
    }
    html.push_str("</table></div><h3>Bodies of functions, filled in</h3>");
    let exact = evaluation.filled.iter().filter(|one| one.answer == one.original).count();
    let _ = write!(
        html,
        "<p>{exact} of {} bodies of one line, from a crate that was held back, came out to the letter; the model \
         was told their number of tokens.</p><div class=\"scroll\"><table><tr><th class=\"left\">as people wrote \
         it</th><th class=\"left\">as the model filled it in</th></tr>",
        evaluation.filled.len()
    );
    for one in evaluation.filled.iter().take(SHOWN) {
        let _ = write!(
            html,
            "<tr><td class=\"left\"><code>{}</code></td><td class=\"left\"><code>{}</code></td></tr>",
            escape(&one.original),
            escape(&one.answer)
        );
    }
    html + "</table></div>"
}
