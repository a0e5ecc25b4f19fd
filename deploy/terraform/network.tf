resource "google_compute_network" "this" {
  name                    = local.name
  auto_create_subnetworks = false

  depends_on = [google_project_service.used]
}

resource "google_compute_subnetwork" "nodes" {
  name                     = "${local.name}-nodes"
  network                  = google_compute_network.this.id
  region                   = var.region
  ip_cidr_range            = var.network_range.nodes
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = var.network_range.pods
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = var.network_range.services
  }
}

# Nodes have no addresses of their own: what they fetch from outside goes through here, and nothing comes in.
resource "google_compute_router" "out" {
  name    = "${local.name}-out"
  network = google_compute_network.this.id
  region  = var.region
}

resource "google_compute_router_nat" "out" {
  name                               = "${local.name}-out"
  router                             = google_compute_router.out.name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}

# Cloud SQL lives in Google's network, joined to ours.
resource "google_compute_global_address" "services" {
  name          = "${local.name}-services"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
  network       = google_compute_network.this.id
}

resource "google_service_networking_connection" "services" {
  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]
}

# Names that do not change with the address: postgres.matching.internal, as dagster.yaml says.
resource "google_dns_managed_zone" "internal" {
  name       = "${local.name}-internal"
  dns_name   = "matching.internal."
  visibility = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.this.id
    }
  }
}

resource "google_dns_record_set" "postgres" {
  managed_zone = google_dns_managed_zone.internal.name
  name         = "postgres.${google_dns_managed_zone.internal.dns_name}"
  type         = "A"
  ttl          = 60
  rrdatas      = [google_sql_database_instance.dagster.private_ip_address]
}

# Google's APIs at four addresses of their own, which a network policy can name: private.googleapis.com.
resource "google_dns_managed_zone" "google" {
  name       = "${local.name}-googleapis"
  dns_name   = "googleapis.com."
  visibility = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.this.id
    }
  }
}

resource "google_dns_record_set" "google" {
  managed_zone = google_dns_managed_zone.google.name
  name         = "private.${google_dns_managed_zone.google.dns_name}"
  type         = "A"
  ttl          = 300
  rrdatas      = ["199.36.153.8", "199.36.153.9", "199.36.153.10", "199.36.153.11"]
}

resource "google_dns_record_set" "every_google" {
  managed_zone = google_dns_managed_zone.google.name
  name         = "*.${google_dns_managed_zone.google.dns_name}"
  type         = "CNAME"
  ttl          = 300
  rrdatas      = [google_dns_record_set.google.name]
}
