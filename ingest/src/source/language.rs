//! Programming languages by file extension, file name and first line.

use std::{fs::File, io::Read as _, path::Path};

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

/// Whole names of files, in lower case, with their language.
const KNOWN_NAMES: &[(&str, &str)] = &[
    ("build.bazel", "Starlark"),
    ("cmakelists.txt", "CMake"),
    ("dockerfile", "Dockerfile"),
    ("gemfile", "Ruby"),
    ("gnumakefile", "Makefile"),
    ("jenkinsfile", "Groovy"),
    ("justfile", "Just"),
    ("makefile", "Makefile"),
    ("rakefile", "Ruby"),
    ("sconscript", "Python"),
    ("sconstruct", "Python"),
    ("vagrantfile", "Ruby"),
    ("wscript", "Python"),
];

/// What a script's first line may call, with its language. A version may follow.
const INTERPRETERS: &[(&str, &str)] = &[
    ("awk", "Awk"),
    ("bash", "Shell"),
    ("dash", "Shell"),
    ("gawk", "Awk"),
    ("ksh", "Shell"),
    ("lua", "Lua"),
    ("node", "JavaScript"),
    ("perl", "Perl"),
    ("php", "PHP"),
    ("pypy", "Python"),
    ("python", "Python"),
    ("rscript", "R"),
    ("ruby", "Ruby"),
    ("sh", "Shell"),
    ("tclsh", "Tcl"),
    ("zsh", "Shell"),
];

/// A first line of a script is looked for in this many bytes.
const FIRST_LINE: u64 = 256;

/// The language of a file by its whole name or its extension; nothing is opened. `Dockerfile.dev`
/// counts as a `Dockerfile`.
#[must_use]
pub fn language_of_name(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let known = |name: &str| {
        KNOWN_NAMES.binary_search_by_key(&name, |(known, _)| known).ok().map(|i| KNOWN_NAMES[i].1)
    };
    if let Some(language) = known(&name) {
        return Some(language);
    }
    if let Some(("dockerfile" | "makefile", _)) = name.split_once('.') {
        return known(name.split_once('.')?.0);
    }
    language_of(path.extension()?.to_str()?)
}

/// The language of a file here: by its name or, when that has no extension, by the interpreter that
/// its first line names.
#[must_use]
pub fn language_of_file(path: &Path) -> Option<&'static str> {
    let named = language_of_name(path);
    if named.is_some() || path.extension().is_some() {
        return named;
    }
    let mut head = Vec::new();
    File::open(path).ok()?.take(FIRST_LINE).read_to_end(&mut head).ok()?;
    language_of_script(&head)
}

/// The language of a script by its first line: `#!/usr/bin/env python3`.
#[must_use]
pub fn language_of_script(text: &[u8]) -> Option<&'static str> {
    let line = text.strip_prefix(b"#!")?;
    let line = std::str::from_utf8(line.split(|&byte| byte == b'\n').next()?).ok()?;
    let mut words = line.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let mut program = words.next()?;
    if program == "env" {
        program = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
    }
    let program = program.to_ascii_lowercase();
    let program = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let found = INTERPRETERS.binary_search_by_key(&program, |(known, _)| known).ok()?;
    Some(INTERPRETERS[found].1)
}

#[cfg(test)]
mod tests {
    use super::{
        INTERPRETERS, KNOWN_EXTENSIONS, KNOWN_NAMES, language_of, language_of_file,
        language_of_script,
    };
    use std::path::Path;

    #[test]
    fn the_table_is_sorted_and_found_in_any_case() {
        assert!(KNOWN_EXTENSIONS.is_sorted());
        for (extension, language) in KNOWN_EXTENSIONS {
            assert_eq!(language_of(extension), Some(*language));
        }
        assert_eq!(language_of("RS"), Some("Rust"));
        assert_eq!(language_of("exe"), None);
    }

    #[test]
    fn names_and_first_lines() {
        assert!(KNOWN_NAMES.is_sorted() && INTERPRETERS.is_sorted());
        for (name, language) in [
            ("a/Makefile", Some("Makefile")),
            ("Dockerfile", Some("Dockerfile")),
            ("Dockerfile.dev", Some("Dockerfile")),
            ("CMakeLists.txt", Some("CMake")),
            ("notes.txt", None),
            ("x.py", Some("Python")),
            ("nowhere/without-extension", None),
        ] {
            assert_eq!(language_of_file(Path::new(name)), language, "{name}");
        }
        for (line, language) in [
            ("#!/bin/sh\n", Some("Shell")),
            ("#!/usr/bin/env python3.11\nx", Some("Python")),
            ("#! /usr/bin/env -S LANG=C perl -w\n", Some("Perl")),
            ("#!/usr/bin/env", None),
            ("#!/opt/unheard-of\n", None),
            ("#include <x>\n", None),
            ("", None),
        ] {
            assert_eq!(language_of_script(line.as_bytes()), language, "{line}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("run");
        std::fs::write(&script, "#!/usr/bin/ruby\nputs 1\n").expect("written");
        assert_eq!(language_of_file(&script), Some("Ruby"));
    }
}
