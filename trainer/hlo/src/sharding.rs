//! Devices as a mesh, and how a value lies on it.

use std::fmt::Write;

/// The devices as a box with named axes, the last one changing fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Name and extent of every axis.
    pub axes: Vec<(String, usize)>,
}

impl Mesh {
    /// How many devices the mesh has.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.axes.iter().map(|(_, extent)| extent).product()
    }

    /// As Shardy writes it.
    pub(crate) fn text(&self) -> String {
        let axes: Vec<String> =
            self.axes.iter().map(|(name, extent)| format!("\"{name}\"={extent}")).collect();
        format!("sdy.mesh @mesh = <[{}]>", axes.join(", "))
    }

    /// What is wrong with a sharding on this mesh, if anything.
    pub(crate) fn fault(&self, sharding: &Sharding) -> Option<String> {
        let mut seen: Vec<&String> = Vec::new();
        for name in sharding.dims.iter().flatten() {
            if !self.axes.iter().any(|(axis, _)| axis == name) {
                return Some(format!("the mesh has no axis `{name}`"));
            }
            if seen.contains(&name) {
                return Some(format!("axis `{name}` of the mesh is used twice"));
            }
            seen.push(name);
        }
        None
    }
}

/// For every axis of a value the axes of the mesh over which it is split; none: each device has all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sharding {
    /// Mesh axes per axis of the value, the first one splitting coarsest.
    pub dims: Vec<Vec<String>>,
}

impl Sharding {
    /// Whole on every device.
    #[must_use]
    pub fn replicated(rank: usize) -> Self {
        Self { dims: vec![Vec::new(); rank] }
    }

    /// Whether no axis is split.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        self.dims.iter().all(Vec::is_empty)
    }

    /// As Shardy writes it: `<@mesh, [{"fsdp"}, {}]>`.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("<@mesh, [");
        for (axis, names) in self.dims.iter().enumerate() {
            let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            let comma = if axis == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{{{}}}", quoted.join(", "));
        }
        text + "]>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh() -> Mesh {
        Mesh { axes: vec![("data".into(), 2), ("fsdp".into(), 4)] }
    }

    #[test]
    fn a_mesh_and_a_sharding_read_as_shardy() {
        assert_eq!(mesh().devices(), 8);
        assert_eq!(mesh().text(), r#"sdy.mesh @mesh = <["data"=2, "fsdp"=4]>"#);
        let both = Sharding { dims: vec![vec!["data".into(), "fsdp".into()], vec![]] };
        assert_eq!(both.text(), r#"<@mesh, [{"data", "fsdp"}, {}]>"#);
        assert_eq!(Sharding::replicated(0).text(), "<@mesh, []>");
        assert!(!both.is_replicated() && Sharding::replicated(3).is_replicated());
    }

    #[test]
    fn a_sharding_must_fit_its_mesh() {
        let on = |names: &[&str]| Sharding {
            dims: names.iter().map(|name| vec![(*name).to_owned()]).collect(),
        };
        assert_eq!(mesh().fault(&on(&["fsdp", "data"])), None);
        assert!(mesh().fault(&on(&["tensor"])).expect("unknown").contains("`tensor`"));
        assert!(mesh().fault(&on(&["fsdp", "fsdp"])).expect("twice").contains("twice"));
    }
}
