variable "project" {
  description = "The Google Cloud project that all of it lies in, and that pays"
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project's id has 6 to 30 lower-case letters, digits and hyphens; not its name, not its number."
  }
}

variable "environment" {
  description = "Which of the platform's environments this is; each has its own of everything"
  type        = string

  validation {
    condition     = contains(["staging", "production"], var.environment)
    error_message = "The environment is staging or production; local needs no cloud."
  }
}

variable "region" {
  description = "Where the cluster, the database and the registry are"
  type        = string
  default     = "europe-west1"
}

variable "location" {
  description = "Where BigQuery and Cloud Storage keep data: a region or EU, US; that of the raw dataset"
  type        = string
  default     = "EU"
}

variable "raw_dataset" {
  description = "The company's dataset with the raw tables, which is only read: DATASET or PROJECT.DATASET"
  type        = string
  default     = "finance"

  validation {
    condition     = can(regex("^([a-z][a-z0-9-]*\\.)?[A-Za-z0-9_]+$", var.raw_dataset))
    error_message = "Name the raw dataset as DATASET or PROJECT.DATASET."
  }
}

variable "first_month" {
  description = "The first month of all monthly assets, YYYY-MM"
  type        = string

  validation {
    condition     = can(regex("^\\d{4}-(0[1-9]|1[0-2])$", var.first_month))
    error_message = "The first month is YYYY-MM, for instance 2023-01."
  }
}

variable "administrators" {
  description = "Address ranges that may reach the cluster's control plane, by what they are called"
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for range in values(var.administrators) : can(cidrhost(range, 0)) && range != "0.0.0.0/0"])
    error_message = "Give ranges as 203.0.113.0/24; the whole internet is none."
  }
}

variable "network_range" {
  description = "The addresses of nodes; pods and services have their own ranges beside it"
  type        = object({ nodes = string, pods = string, services = string, control_plane = string })
  default = {
    nodes         = "10.40.0.0/20"
    pods          = "10.44.0.0/14"
    services      = "10.48.0.0/20"
    control_plane = "172.20.0.0/28"
  }
}

variable "gpu" {
  description = "What a node for trainings is: machine, accelerator, how many at once (the pool `gpu` in dagster.yaml), and zones that have such"
  type        = object({ machine = string, accelerator = string, nodes = number, zones = list(string), spot = bool })
  default = {
    machine     = "g2-standard-16"
    accelerator = "nvidia-l4"
    nodes       = 1
    zones       = ["europe-west1-b", "europe-west1-c"]
    spot        = true # A training goes on from its checkpoint.
  }

  validation {
    condition     = var.gpu.nodes >= 1 && var.gpu.nodes <= 8
    error_message = "Trainings need 1 to 8 nodes; without one, no model is ever made."
  }

  validation {
    condition     = length(var.gpu.zones) > 0 && alltrue([for zone in var.gpu.zones : startswith(zone, "${var.region}-")])
    error_message = "Name zones of the region that have the accelerator: gcloud compute accelerator-types list."
  }
}

variable "database_tier" {
  description = "Cloud SQL's machine for Dagster's runs and events"
  type        = string
  default     = "db-custom-2-7680"
}

variable "github_repository" {
  description = "OWNER/NAME of the repository whose main branch may push images; without it, none may"
  type        = string
  default     = null

  validation {
    condition     = var.github_repository == null || can(regex("^[\\w.-]+/[\\w.-]+$", var.github_repository))
    error_message = "Name the repository as OWNER/NAME."
  }
}

variable "cloud_build_trigger" {
  description = "Whether Cloud Build, too, builds what comes to main; the repository must be connected to it"
  type        = bool
  default     = false
}

variable "prediction_days" {
  description = "How many days the log of what was asked of the service, and answered, is kept"
  type        = number
  default     = 400

  validation {
    condition     = var.prediction_days >= 1
    error_message = "Keep the log of served requests for a day at least: it becomes a table when its day is over."
  }
}

variable "keep_days" {
  description = "How many days a version of an object is kept after it was replaced or deleted"
  type        = number
  default     = 90

  validation {
    condition     = var.keep_days >= 7
    error_message = "Keep what was replaced for 7 days at least: nobody notices a mistake sooner."
  }
}
