//! Schedules: values that change over training (method §4). `coda-curriculum` evaluates them.

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// A value that may change over training.
///
/// Written as a bare value, or as a map with one key: `{linear: {from, to, steps}}`,
/// `{cosine: {from, to, steps}}`, `{piecewise: [[step, value], …]}`, `{epochs: […]}`,
/// `{epoch_cycle: […]}` or `{phases: […]}`. Beside the last four, `hold` makes it wait ([`Hold`]).
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule<T> {
    /// Always the same.
    Constant(T),
    /// A ramp, `from + (to - from) · min(1, step / steps)`.
    Linear {
        /// Value at step 0.
        from: T,
        /// Value from step `steps` on.
        to: T,
        /// Length of the ramp in optimizer steps.
        steps: u64,
    },
    /// Half a cosine wave, slow at both ends: `from + (to - from) · (1 - cos(π min(1, step / steps))) / 2`.
    Cosine {
        /// Value at step 0.
        from: T,
        /// Value from step `steps` on.
        to: T,
        /// Length of the ramp in optimizer steps.
        steps: u64,
    },
    /// Values at steps, ascending, with straight lines between them; lists hold until the next step.
    /// The first value holds before its step and the last one after its own.
    Piecewise(Vec<(u64, T)>),
    /// One value per epoch; the last one holds.
    Epochs(Vec<T>),
    /// One value per epoch, from the start again when the list is used up.
    EpochCycle(Vec<T>),
    /// Equal phases of the total steps.
    Phases(Vec<T>),
    /// A schedule with a clock of its own, which waits while a held-out loss falls.
    Held {
        /// What the clock goes through.
        schedule: Box<Self>,
        /// When it waits.
        hold: Hold,
    },
}

/// When a schedule waits at its gates: until a held-out loss has stopped falling.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The loss that is looked at.
    pub on: HeldOutLoss,
    /// So many evaluations in a row without a fall let the schedule go on.
    pub patience: u32,
    /// A fall is a loss lower than the best by more than this.
    #[serde(default)]
    pub min_delta: f64,
    /// The schedule waits for at most so many steps at one gate.
    pub max_hold: u64,
}

/// A loss over the held-out rows, by the strategy that masks them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum HeldOutLoss {
    /// None: single tokens, as every run measures it.
    #[default]
    Plain,
    /// S1 on every row.
    S1,
    /// S2 on every row.
    S2,
    /// S3 on every row.
    S3,
}

impl HeldOutLoss {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Plain, Self::S1, Self::S2, Self::S3];

    /// Its name in manifests and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::S1 => "s1",
            Self::S2 => "s2",
            Self::S3 => "s3",
        }
    }
}

impl<T> Schedule<T> {
    /// Every value that the schedule names.
    #[must_use]
    pub fn values(&self) -> Vec<&T> {
        match self {
            Self::Constant(value) => vec![value],
            Self::Linear { from, to, .. } | Self::Cosine { from, to, .. } => vec![from, to],
            Self::Piecewise(points) => points.iter().map(|(_, value)| value).collect(),
            Self::Epochs(values) | Self::EpochCycle(values) | Self::Phases(values) => {
                values.iter().collect()
            }
            Self::Held { schedule, .. } => schedule.values(),
        }
    }

    /// The same schedule over other values.
    #[must_use]
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Schedule<U> {
        self.map_with(&mut change)
    }

    /// [`Self::map`] through a reference: a schedule inside another does not make a new type of closure.
    fn map_with<U>(self, change: &mut dyn FnMut(T) -> U) -> Schedule<U> {
        match self {
            Self::Constant(value) => Schedule::Constant(change(value)),
            Self::Linear { from, to, steps } => {
                Schedule::Linear { from: change(from), to: change(to), steps }
            }
            Self::Cosine { from, to, steps } => {
                Schedule::Cosine { from: change(from), to: change(to), steps }
            }
            Self::Piecewise(points) => Schedule::Piecewise(
                points.into_iter().map(|(step, value)| (step, change(value))).collect(),
            ),
            Self::Epochs(values) => Schedule::Epochs(values.into_iter().map(change).collect()),
            Self::EpochCycle(values) => {
                Schedule::EpochCycle(values.into_iter().map(change).collect())
            }
            Self::Phases(values) => Schedule::Phases(values.into_iter().map(change).collect()),
            Self::Held { schedule, hold } => {
                Schedule::Held { schedule: Box::new(schedule.map_with(change)), hold }
            }
        }
    }

    /// Whether the value changes a little at every step: what a list of block sizes cannot do.
    #[must_use]
    pub const fn is_ramp(&self) -> bool {
        matches!(self.unheld(), Self::Linear { .. } | Self::Cosine { .. })
    }

    /// The schedule without its hold.
    #[must_use]
    pub const fn unheld(&self) -> &Self {
        match self {
            Self::Held { schedule, .. } => schedule.unheld(),
            schedule => schedule,
        }
    }

    /// When it waits, if it does.
    #[must_use]
    pub const fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Held { hold, .. } => Some(hold),
            _ => None,
        }
    }

    /// The first step of a piecewise schedule that does not come after the one before it.
    #[must_use]
    pub fn step_out_of_order(&self) -> Option<u64> {
        let Self::Piecewise(points) = self.unheld() else { return None };
        points.windows(2).find(|pair| pair[0].0 >= pair[1].0).map(|pair| pair[1].0)
    }

    /// Whether the value depends on the epoch.
    #[must_use]
    pub const fn reads_epochs(&self) -> bool {
        matches!(self.unheld(), Self::Epochs(_) | Self::EpochCycle(_))
    }
}

impl<T: Serialize> Serialize for Schedule<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Ramp<'a, T> {
            from: &'a T,
            to: &'a T,
            steps: u64,
        }
        if let Self::Constant(value) = self {
            return value.serialize(serializer);
        }
        let hold = self.hold();
        let mut map = serializer.serialize_map(Some(1 + usize::from(hold.is_some())))?;
        match self.unheld() {
            Self::Constant(_) | Self::Held { .. } => {}
            Self::Linear { from, to, steps } => {
                map.serialize_entry("linear", &Ramp { from, to, steps: *steps })?;
            }
            Self::Cosine { from, to, steps } => {
                map.serialize_entry("cosine", &Ramp { from, to, steps: *steps })?;
            }
            Self::Piecewise(points) => map.serialize_entry("piecewise", points)?,
            Self::Epochs(values) => map.serialize_entry("epochs", values)?,
            Self::EpochCycle(values) => map.serialize_entry("epoch_cycle", values)?,
            Self::Phases(values) => map.serialize_entry("phases", values)?,
        }
        if let Some(hold) = hold {
            map.serialize_entry("hold", hold)?;
        }
        map.end()
    }
}

/// The value that a ramp without `from` starts at.
pub(crate) trait RampStart: Sized {
    fn ramp_start() -> Option<Self>;
}

impl RampStart for f64 {
    fn ramp_start() -> Option<Self> {
        Some(0.0)
    }
}

impl RampStart for Sizes {
    fn ramp_start() -> Option<Self> {
        None
    }
}

impl RampStart for Vec<u32> {
    fn ramp_start() -> Option<Self> {
        None
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Shape {
    Linear,
    Cosine,
    Piecewise,
    Epochs,
    EpochCycle,
    Phases,
    Hold,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ramp<T> {
    from: Option<T>,
    to: T,
    steps: u64,
}

impl<T: RampStart> Ramp<T> {
    fn parts<E: de::Error>(self) -> Result<(T, T, u64), E> {
        let from = self.from.or_else(T::ramp_start).ok_or_else(|| E::missing_field("from"))?;
        Ok((from, self.to, self.steps))
    }
}

impl<'de, T: Deserialize<'de> + RampStart> Deserialize<'de> for Schedule<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScheduleVisitor(PhantomData))
    }
}

struct ScheduleVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + RampStart> Visitor<'de> for ScheduleVisitor<T> {
    type Value = Schedule<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(
            "a value, or a map with one of linear, cosine, piecewise, epochs, epoch_cycle, phases",
        )
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Schedule::Constant)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Schedule::Constant)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Schedule::Constant)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(values)).map(Schedule::Constant)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut schedule, mut hold) = (None, None);
        while let Some(shape) = map.next_key::<Shape>()? {
            let found = match shape {
                Shape::Linear => {
                    let (from, to, steps) = map.next_value::<Ramp<T>>()?.parts()?;
                    Schedule::Linear { from, to, steps }
                }
                Shape::Cosine => {
                    let (from, to, steps) = map.next_value::<Ramp<T>>()?.parts()?;
                    Schedule::Cosine { from, to, steps }
                }
                Shape::Piecewise => Schedule::Piecewise(map.next_value()?),
                Shape::Epochs => Schedule::Epochs(map.next_value()?),
                Shape::EpochCycle => Schedule::EpochCycle(map.next_value()?),
                Shape::Phases => Schedule::Phases(map.next_value()?),
                Shape::Hold => {
                    if hold.replace(map.next_value::<Hold>()?).is_some() {
                        return Err(de::Error::duplicate_field("hold"));
                    }
                    continue;
                }
            };
            if schedule.replace(found).is_some() {
                return Err(de::Error::invalid_length(2, &self));
            }
        }
        match (schedule, hold) {
            (Some(schedule), None) => Ok(schedule),
            (Some(schedule), Some(hold)) => {
                Ok(Schedule::Held { schedule: Box::new(schedule), hold })
            }
            (None, Some(_)) => Err(de::Error::custom(
                "a hold stands beside one of piecewise, epochs, epoch_cycle, phases",
            )),
            (None, None) => Err(de::Error::invalid_length(0, &self)),
        }
    }
}

/// A list of block sizes, where a single size may stand for a list of one.
pub(crate) struct Sizes(Vec<u32>);

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizesVisitor;
        impl<'de> Visitor<'de> for SizesVisitor {
            type Value = Sizes;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a block size in tokens or a list of them")
            }
            fn visit_u64<E: de::Error>(self, size: u64) -> Result<Sizes, E> {
                u32::deserialize(size.into_deserializer()).map(|size| Sizes(vec![size]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, sizes: A) -> Result<Sizes, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(sizes)).map(Sizes)
            }
        }
        deserializer.deserialize_any(SizesVisitor)
    }
}

/// Reads a schedule of block sizes.
pub(crate) fn sizes_or_size<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Schedule<Vec<u32>>>, D::Error> {
    let schedule = Option::<Schedule<Sizes>>::deserialize(deserializer)?;
    Ok(schedule.map(|schedule| schedule.map(|sizes| sizes.0)))
}
