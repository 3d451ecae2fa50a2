//! The compiler's words about memory.

/// A program that needs more memory than there is, as the compiler says it.
#[derive(Clone, Debug, PartialEq)]
pub struct OutOfMemory {
    /// The sentence that says so.
    pub text: String,
    /// What it would use and what there is, as the compiler writes them (`16.54G`, `15.75G`).
    pub used_of: Option<(String, String)>,
}

impl OutOfMemory {
    /// Reads a refusal; `None` if it is about something else.
    #[must_use]
    pub fn read(words: &str) -> Option<Self> {
        let lower = words.to_ascii_lowercase();
        let about = ["ran out of memory", "out of memory", "hbmoom", "exceeded hbm capacity"]
            .into_iter()
            .filter_map(|phrase| lower.find(phrase))
            .min()?;
        // the sentences about it are on one line; what follows lists allocations, for pages
        let start = words[..about].rfind('\n').map_or(0, |at| at + 1);
        let end = words[about..].find('\n').map_or(words.len(), |at| about + at);
        let used_of = words.find("Used ").and_then(|at| {
            let mut parts = words[at..].split_whitespace().skip(1);
            let used = parts.next()?;
            let of = (parts.next()? == "of").then(|| parts.next()).flatten()?;
            Some((used.to_owned(), of.to_owned()))
        });
        Some(Self { text: words[start..end].trim().to_owned(), used_of })
    }
}

#[cfg(test)]
mod tests {
    use super::OutOfMemory;

    #[test]
    fn the_sentence_and_its_figures_are_found() {
        let words = "libtpu.so: PJRT_Compile: RESOURCE_EXHAUSTED\nE1000: CompileTimeHbmOom: Ran out of \
                     memory in memory space hbm. Used 16.54G of 15.75G hbm. Exceeded hbm capacity \
                     by 808.67M.\n\nTotal hbm usage >= 16.54G:\n  program 16.54G";
        let found = OutOfMemory::read(words).expect("about memory");
        assert!(found.text.starts_with("E1000") && found.text.ends_with("808.67M."), "{found:?}");
        assert_eq!(found.used_of, Some(("16.54G".into(), "15.75G".into())));
    }

    #[test]
    fn other_refusals_are_left_alone() {
        assert_eq!(OutOfMemory::read("line 3: unknown operation"), None);
        let bare = OutOfMemory::read("Out of memory").expect("about memory");
        assert_eq!((bare.text.as_str(), bare.used_of), ("Out of memory", None));
    }
}
