//! Programming languages by file extension.

/// Extensions that count as code when a source does not name its own, with their language.
pub const KNOWN_EXTENSIONS: &[(&str, &str)] = &[
    ("bash", "Shell"),
    ("c", "C"),
    ("cc", "C++"),
    ("clj", "Clojure"),
    ("cpp", "C++"),
    ("cs", "C#"),
    ("css", "CSS"),
    ("cu", "CUDA"),
    ("cuh", "CUDA"),
    ("cxx", "C++"),
    ("dart", "Dart"),
    ("ex", "Elixir"),
    ("exs", "Elixir"),
    ("f90", "Fortran"),
    ("go", "Go"),
    ("h", "C"),
    ("hh", "C++"),
    ("hpp", "C++"),
    ("hs", "Haskell"),
    ("html", "HTML"),
    ("java", "Java"),
    ("jl", "Julia"),
    ("js", "JavaScript"),
    ("jsx", "JavaScript"),
    ("kt", "Kotlin"),
    ("lua", "Lua"),
    ("m", "Objective-C"),
    ("md", "Markdown"),
    ("mjs", "JavaScript"),
    ("ml", "OCaml"),
    ("php", "PHP"),
    ("pl", "Perl"),
    ("ps1", "PowerShell"),
    ("py", "Python"),
    ("pyi", "Python"),
    ("pyx", "Cython"),
    ("r", "R"),
    ("rb", "Ruby"),
    ("rs", "Rust"),
    ("s", "Assembly"),
    ("scala", "Scala"),
    ("sh", "Shell"),
    ("sql", "SQL"),
    ("swift", "Swift"),
    ("toml", "TOML"),
    ("ts", "TypeScript"),
    ("tsx", "TypeScript"),
    ("vue", "Vue"),
    ("yaml", "YAML"),
    ("yml", "YAML"),
    ("zig", "Zig"),
];

/// The language of an extension (without the dot, any case).
#[must_use]
pub fn language_of(extension: &str) -> Option<&'static str> {
    let extension = extension.to_ascii_lowercase();
    KNOWN_EXTENSIONS
        .binary_search_by_key(&extension.as_str(), |(known, _)| known)
        .ok()
        .map(|index| KNOWN_EXTENSIONS[index].1)
}

#[cfg(test)]
mod tests {
    use super::{KNOWN_EXTENSIONS, language_of};

    #[test]
    fn the_table_is_sorted_and_found_in_any_case() {
        assert!(KNOWN_EXTENSIONS.is_sorted());
        for (extension, language) in KNOWN_EXTENSIONS {
            assert_eq!(language_of(extension), Some(*language));
        }
        assert_eq!(language_of("RS"), Some("Rust"));
        assert_eq!(language_of("exe"), None);
    }
}
