//! Invocation traces in the layout of the Azure Functions 2019 data set.
//!
//! Invocations, one file a day: `HashOwner,HashApp,HashFunction,Trigger,1,…,1440`. Optionally execution
//! times (`…,HashFunction,Average,…`, in milliseconds) and memory by application (`HashOwner,HashApp,…,
//! AverageAllocatedMb,…`); columns are found by their names. What a file does not say is drawn from the
//! published distributions (see `generate`), the same for the same function in every run.

use super::generate::{self, DAY};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// A function as it is replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// (minute, calls), in order, only minutes with calls.
    pub counts: Vec<(u32, u32)>,
    /// Seconds that one call takes.
    pub duration: f64,
    /// MB of one instance.
    pub memory: f64,
    /// Of the moments within minutes.
    pub seed: u64,
}

/// Functions and for how many minutes they were watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// In the order in which they first appear.
    pub functions: Vec<Function>,
    /// Of all files together.
    pub minutes: u32,
}

/// Files to read.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// Invocations, day after day.
    pub invocations: &'a [PathBuf],
    /// Execution times.
    pub durations: &'a [PathBuf],
    /// Memory of applications.
    pub memory: &'a [PathBuf],
}

/// Reads them.
///
/// # Errors
/// What is wrong, with file and line.
pub fn read(files: Files<'_>, seed: u64) -> Result<Trace, String> {
    let mut trace = Trace::default();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut apps: Vec<String> = Vec::new();
    for (day, path) in files.invocations.iter().enumerate() {
        let first = u32::try_from(day).unwrap_or(u32::MAX).saturating_mul(DAY);
        each_row(path, &["HashOwner", "HashApp", "HashFunction", "1"], |row, places| {
            let id = row.key(places, 3)?;
            let number = *known.entry(id).or_insert_with_key(|id| {
                trace.functions.push(unknown(id, seed));
                apps.push(id.rsplit_once(',').map_or(String::new(), |(app, _)| app.to_owned()));
                trace.functions.len() - 1
            });
            row.counts(places[3], first, &mut trace.functions[number].counts)
        })?;
        trace.minutes = first + DAY;
    }
    for path in files.durations {
        each_row(path, &["HashOwner", "HashApp", "HashFunction", "Average"], |row, places| {
            let millis = row.number(places[3])?;
            if let Some(number) = known.get(&row.key(places, 3)?) {
                trace.functions[*number].duration = (millis / 1e3).max(0.001);
            }
            Ok(())
        })?;
    }
    let mut memory: HashMap<String, f64> = HashMap::new();
    for path in files.memory {
        each_row(path, &["HashOwner", "HashApp", "AverageAllocatedMb"], |row, places| {
            memory.insert(row.key(places, 2)?, row.number(places[2])?);
            Ok(())
        })?;
    }
    for (function, app) in trace.functions.iter_mut().zip(&apps) {
        function.memory = memory.get(app).copied().unwrap_or(function.memory);
    }
    Ok(trace)
}

/// What is not known of a function, by its name.
fn unknown(id: &str, seed: u64) -> Function {
    // FNV-1a: the same on every machine.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let mut random = generate::random(seed, hash);
    let (duration, memory) = generate::body(&mut random);
    Function { counts: Vec::new(), duration, memory, seed: random.u64(..) }
}

struct Row<'a> {
    cells: Vec<&'a str>,
}

impl Row<'_> {
    fn cell(&self, place: usize) -> Result<&str, String> {
        self.cells.get(place).copied().ok_or_else(|| format!("only {} columns", self.cells.len()))
    }

    /// The first columns asked for, which together name a thing.
    fn key(&self, places: &[usize], columns: usize) -> Result<String, String> {
        let cells: Result<Vec<&str>, String> =
            places[..columns].iter().map(|place| self.cell(*place)).collect();
        Ok(cells?.join(","))
    }

    fn number(&self, place: usize) -> Result<f64, String> {
        let text = self.cell(place)?;
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
            _ => Err(format!("{text:?} is not a number of at least 0")),
        }
    }

    fn counts(&self, from: usize, first: u32, counts: &mut Vec<(u32, u32)>) -> Result<(), String> {
        for (minute, text) in (first..).zip(self.cells[from.min(self.cells.len())..].iter().take(1440)) {
            if *text == "0" || text.is_empty() {
                continue;
            }
            let count = text.parse().map_err(|_| format!("{text:?} is not a number of calls"))?;
            // A function that stands in a file twice: both rows count.
            match counts.binary_search_by_key(&minute, |(at, _)| *at) {
                Ok(place) => counts[place].1 = counts[place].1.saturating_add(count),
                Err(place) => counts.insert(place, (minute, count)),
            }
        }
        Ok(())
    }
}

/// Calls `take` with each row and the places of `columns` in it.
fn each_row(
    path: &Path,
    columns: &[&str],
    mut take: impl FnMut(&Row<'_>, &[usize]) -> Result<(), String>,
) -> Result<(), String> {
    let wrong = |line: usize, reason: String| format!("{}:{line}: {reason}", path.display());
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut places: Vec<usize> = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| wrong(number + 1, error.to_string()))?;
        let row = Row { cells: line.trim_end().split(',').collect() };
        if number > 0 {
            take(&row, &places).map_err(|reason| wrong(number + 1, reason))?;
            continue;
        }
        for column in columns {
            let place = row.cells.iter().position(|cell| cell == column);
            places.push(place.ok_or_else(|| wrong(1, format!("there is no column {column:?}")))?);
        }
    }
    if places.is_empty() { Err(wrong(1, "the file is empty".to_owned())) } else { Ok(()) }
}
