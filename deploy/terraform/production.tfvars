project           = "example-project"
environment       = "production"
first_month       = "2023-01"
github_repository = "example/matching-platform"
administrators    = { office = "203.0.113.0/24" }
