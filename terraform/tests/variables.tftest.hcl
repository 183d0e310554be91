# What is asked of the root reaches the module that does it, and what cannot be
# is refused.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  region             = "eu-west-1"
  cluster_admin_arns = ["arn:aws:iam::123456789012:role/admin"]
}

run "one_public_way_in" {
  variables {
    cluster_api_cidrs = ["203.0.113.7/32"]
  }

  assert {
    condition     = module.cluster[0].arn == "arn:aws:eks:eu-west-1:123456789012:cluster/roster" && length(module.network[0].private_subnet_ids) == 3 && length(module.network[0].nat_public_ips) == 1
    error_message = "The cluster stands in the private subnets."
  }
}

run "nat_gateway_per_zone" {
  variables {
    nat_gateway_per_zone = true
  }

  assert {
    condition     = length(module.network[0].nat_public_ips) == 3
    error_message = "The network has as many ways out as was asked for."
  }
}

run "refuses_region_that_is_none" {
  command = plan
  variables { region = "eu-west-1a" }
  expect_failures = [var.region]
}

run "refuses_bad_name" {
  command = plan
  variables { name = "Roster" }
  expect_failures = [var.name]
}

run "refuses_tag_that_is_set_here" {
  command = plan
  variables { tags = { ManagedBy = "hand" } }
  expect_failures = [var.tags]
}

run "refuses_tag_of_aws" {
  command = plan
  variables { tags = { "aws:owner" = "anna" } }
  expect_failures = [var.tags]
}

run "refuses_long_tag" {
  command = plan
  variables { tags = { owner = join("", [for i in range(257) : "x"]) } }
  expect_failures = [var.tags]
}

run "refuses_too_many_tags" {
  command = plan
  variables { tags = { for i in range(41) : "tag-${i}" => "x" } }
  expect_failures = [var.tags]
}

run "refuses_arn_for_existing_cluster" {
  command = plan
  variables { existing_cluster_name = "arn:aws:eks:eu-west-1:123456789012:cluster/production" }
  expect_failures = [var.existing_cluster_name]
}

run "refuses_image_with_tag" {
  command = plan
  variables { image_repository = "registry.example.com/roster:v1" }
  expect_failures = [var.image_repository]
}

run "refuses_bad_tag" {
  command = plan
  variables { image_tag = "v1/2" }
  expect_failures = [var.image_tag]
}
