//! `a.b.c=value`: overrides written into the tree before the types are read.

use crate::node::{Entry, Node, Value};
use crate::{ManifestError, Place, load};

/// Writes one override into `root`. Maps on the way are made, items of a list must exist.
pub(crate) fn apply(root: &mut Node, text: &str) -> Result<(), ManifestError> {
    let error = |message: String| ManifestError::Override { text: text.to_owned(), message };
    let (path, value) =
        text.split_once('=').ok_or_else(|| error("there is no `=` in it".to_owned()))?;
    let path = path.trim();
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err(error(format!("`{path}` is not a key")));
    }
    let place = Place::Override(text.to_owned());
    let mut value = load::parse(value).map_err(|(_, message)| error(message))?;
    value.relocate(&place);

    let mut node = root;
    let mut walked = String::new();
    for part in path.split('.') {
        if matches!(node.value, Value::Null) {
            node.value = Value::Map(Vec::new());
        }
        node = match &mut node.value {
            Value::Map(entries) => {
                let index = entries.iter().position(|entry| entry.key == part);
                let index = index.unwrap_or_else(|| {
                    let empty = Node { place: place.clone(), value: Value::Null };
                    entries.push(Entry {
                        key: part.to_owned(),
                        key_place: place.clone(),
                        node: empty,
                    });
                    entries.len() - 1
                });
                &mut entries[index].node
            }
            Value::List(nodes) => {
                let length = nodes.len();
                let item = part.parse::<usize>().ok().and_then(|index| nodes.get_mut(index));
                item.ok_or_else(|| {
                    error(format!("`{walked}` is a list of {length}; `{part}` is not in it"))
                })?
            }
            // A bare value gives way to the map that the override names: `p1=0.1` in the file,
            // `curriculum.p1.linear.to=0.2` on the command line.
            scalar => {
                *scalar = Value::Map(vec![Entry {
                    key: part.to_owned(),
                    key_place: place.clone(),
                    node: Node { place: place.clone(), value: Value::Null },
                }]);
                let Value::Map(entries) = scalar else { unreachable!("it was made a map above") };
                &mut entries[0].node
            }
        };
        if !walked.is_empty() {
            walked.push('.');
        }
        walked.push_str(part);
    }
    *node = value;
    Ok(())
}
