terraform {
  required_version = ">= 1.11" # Write-only arguments keep the database's password out of the state.

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.7"
    }
  }

  # terraform init -backend-config=bucket=PROJECT-terraform -backend-config=prefix=matching/ENVIRONMENT
  backend "gcs" {}
}

provider "google" {
  project        = var.project
  region         = var.region
  default_labels = { application = "matching-platform", environment = var.environment }
}
