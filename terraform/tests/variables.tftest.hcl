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

run "refuses_no_days_for_deleted_avatars" {
  command = plan
  variables { avatar_noncurrent_days = 0 }
  expect_failures = [var.avatar_noncurrent_days]
}

run "refuses_bad_namespace" {
  command = plan
  variables { namespace = "kube_system" }
  expect_failures = [var.namespace]
}

run "refuses_bad_service_account" {
  command = plan
  variables { service_account = "Roster" }
  expect_failures = [var.service_account]
}

run "refuses_network_with_host_bits" {
  command = plan
  variables { vpc_cidr = "10.0.0.1/16" }
  expect_failures = [var.vpc_cidr]
}

run "refuses_too_small_a_network" {
  command = plan
  variables { vpc_cidr = "10.0.0.0/24" }
  expect_failures = [var.vpc_cidr]
}

run "refuses_session_for_administrator" {
  command = plan
  variables { cluster_admin_arns = ["arn:aws:sts::123456789012:assumed-role/admin/anna"] }
  expect_failures = [var.cluster_admin_arns]
}

run "refuses_api_open_to_the_world" {
  command = plan
  variables { cluster_api_cidrs = ["0.0.0.0/0"] }
  expect_failures = [var.cluster_api_cidrs]
}

run "refuses_api_range_with_host_bits" {
  command = plan
  variables { cluster_api_cidrs = ["203.0.113.7/24"] }
  expect_failures = [var.cluster_api_cidrs]
}

run "refuses_patch_version" {
  command = plan
  variables { kubernetes_version = "1.35.1" }
  expect_failures = [var.kubernetes_version]
}

run "refuses_no_instance_type" {
  command = plan
  variables { node_instance_types = [] }
  expect_failures = [var.node_instance_types]
}

run "refuses_unknown_architecture" {
  command = plan
  variables { node_architecture = "x86_64" }
  expect_failures = [var.node_architecture]
}

run "refuses_more_nodes_than_the_most" {
  command = plan
  variables { node_count = { min = 4, max = 3 } }
  expect_failures = [var.node_count]
}

run "refuses_retention_that_cloudwatch_has_not" {
  command = plan
  variables { log_retention_days = 100 }
  expect_failures = [var.log_retention_days]
}
