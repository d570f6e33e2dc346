//! What the process itself uses, by the names that all Prometheus clients give it.

use std::fmt::Error;

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, boot_time_secs, page_size, ticks_per_second};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Looked up when they are read.
#[derive(Debug)]
pub struct ProcessFigures;

struct Figures {
    cpu_seconds: f64,
    started_at: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: i64,
    open_files: u64,
    most_files: u64,
}

impl Figures {
    #[expect(clippy::cast_precision_loss, reason = "ticks and seconds of years fit into 53 bits")]
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
        let most_files = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(most) => most,
            LimitValue::Unlimited => u64::MAX,
        };
        Ok(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            started_at: boot_time_secs()? as f64 + seconds(stat.starttime),
            resident_bytes: stat.rss * page_size(),
            virtual_bytes: stat.vsize,
            threads: stat.num_threads,
            open_files: process.fd_count()? as u64,
            most_files,
        })
    }
}

impl Collector for ProcessFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        // Where the kernel doesn't say, these are missing and the others stay.
        let Ok(figures) = Figures::read() else { return Ok(()) };
        let seconds = Some(&Unit::Seconds);
        let bytes = Some(&Unit::Bytes);
        let e = &mut encoder;
        let cpu = ConstCounter::new(figures.cpu_seconds);
        put(e, "process_cpu", "Time that processors have spent on it", seconds, &cpu)?;
        let started_at = ConstGauge::new(figures.started_at);
        put(e, "process_start_time", "When it started, since 1970", seconds, &started_at)?;
        let resident = ConstGauge::new(figures.resident_bytes);
        put(e, "process_resident_memory", "Memory in use", bytes, &resident)?;
        let reserved = ConstGauge::new(figures.virtual_bytes);
        put(e, "process_virtual_memory", "Addresses in use", bytes, &reserved)?;
        put(e, "process_threads", "Threads", None, &ConstGauge::new(figures.threads))?;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = runtime.metrics().num_alive_tasks();
            let tasks = ConstGauge::new(i64::try_from(tasks).unwrap_or(i64::MAX));
            put(e, "capconduit_tasks", "Tasks of the service that are alive", None, &tasks)?;
        }
        put(e, "process_open_fds", "Open files", None, &ConstGauge::new(figures.open_files))?;
        let most_files = ConstGauge::new(figures.most_files);
        put(e, "process_max_fds", "Files that may be open", None, &most_files)
    }
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> Result<(), Error> {
    let help = format!("{help}.");
    metric.encode(encoder.encode_descriptor(name, &help, unit, metric.metric_type())?)
}
