mod database;
mod support {
    pub mod postgres;
}
