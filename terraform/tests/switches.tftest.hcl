# Every combination of the switches that say what is made.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  region = "eu-west-1"
}

run "whole_stack" {
  variables {
    cluster_admin_arns = ["arn:aws:iam::123456789012:role/admin"]
  }

  assert {
    condition     = length(module.network) == 1 && length(module.cluster) == 1 && length(module.registry) == 1 && length(module.identity) == 1 && length(data.aws_eks_cluster.existing) == 0
    error_message = "By default everything is made."
  }

  assert {
    condition = yamldecode(output.helm_values) == {
      image          = { repository = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster" }
      aws            = { region = "eu-west-1", dynamodbTable = "roster-users", s3Bucket = "roster-avatars-0123" }
      serviceAccount = { name = "roster" }
    }
    error_message = "The chart is told the image, the storage and the service account."
  }

  assert {
    condition     = output.cluster_name == "roster" && output.kubeconfig_command == "aws eks update-kubeconfig --region eu-west-1 --name roster" && output.namespace == "roster"
    error_message = "The outputs lead to the new cluster."
  }

  assert {
    condition     = output.table_name == "roster-users" && output.bucket_name == "roster-avatars-0123" && output.role_arn == "arn:aws:iam::123456789012:role/roster-pods" && output.repository_url == "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster"
    error_message = "The outputs name what was made."
  }
}

run "whole_stack_with_another_registry" {
  variables {
    cluster_admin_arns = ["arn:aws:iam::123456789012:role/admin"]
    image_repository   = "registry.example.com:5000/team/roster"
    image_tag          = "v1.2.3"
    namespace          = "people"
    service_account    = "roster-api"
  }

  assert {
    condition     = length(module.cluster) == 1 && length(module.registry) == 0 && output.repository_url == null
    error_message = "With an image from elsewhere no registry is made."
  }

  assert {
    condition = yamldecode(output.helm_values) == {
      image          = { repository = "registry.example.com:5000/team/roster", tag = "v1.2.3" }
      aws            = { region = "eu-west-1", dynamodbTable = "roster-users", s3Bucket = "roster-avatars-0123" }
      serviceAccount = { name = "roster-api" }
    }
    error_message = "The chart is told that image and that service account."
  }

  assert {
    condition     = output.namespace == "people"
    error_message = "The namespace is as asked for."
  }
}

run "whole_stack_with_a_tag" {
  variables {
    cluster_admin_arns = ["arn:aws:iam::123456789012:role/admin"]
    image_tag          = "1.0"
  }

  assert {
    condition     = yamldecode(output.helm_values).image == { repository = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster", tag = "1.0" }
    error_message = "A tag that looks like a number stays a string."
  }
}

run "existing_cluster" {
  variables {
    existing_cluster_name = "production"
  }

  assert {
    condition     = length(module.network) == 0 && length(module.cluster) == 0 && length(module.registry) == 0 && length(module.identity) == 1 && data.aws_eks_cluster.existing[0].name == "production"
    error_message = "With a cluster there is, storage and the pods' role are made and nothing else."
  }

  assert {
    condition = yamldecode(output.helm_values) == {
      aws            = { region = "eu-west-1", dynamodbTable = "roster-users", s3Bucket = "roster-avatars-0123" }
      serviceAccount = { name = "roster" }
    }
    error_message = "The chart is told the storage and the service account."
  }

  assert {
    condition     = output.cluster_name == "production" && output.kubeconfig_command == "aws eks update-kubeconfig --region eu-west-1 --name production"
    error_message = "The outputs lead to the existing cluster."
  }
}

run "existing_cluster_with_an_image" {
  variables {
    existing_cluster_name = "production"
    image_repository      = "registry.example.com/roster"
  }

  assert {
    condition     = length(module.registry) == 0 && yamldecode(output.helm_values).image == { repository = "registry.example.com/roster" }
    error_message = "The chart is told the image."
  }
}

run "storage_only" {
  variables {
    storage_only = true
  }

  assert {
    condition     = length(module.network) == 0 && length(module.cluster) == 0 && length(module.registry) == 0 && length(module.identity) == 0 && length(data.aws_eks_cluster.existing) == 0
    error_message = "Storage alone is the table and the bucket."
  }

  assert {
    condition = yamldecode(output.helm_values) == {
      aws = { region = "eu-west-1", dynamodbTable = "roster-users", s3Bucket = "roster-avatars-0123" }
    }
    error_message = "The chart is told the storage."
  }

  assert {
    condition     = output.role_arn == null && output.namespace == null && output.cluster_name == null && output.kubeconfig_command == null && output.repository_url == null
    error_message = "What is not made is null."
  }
}

run "storage_only_with_an_image" {
  variables {
    storage_only     = true
    image_repository = "registry.example.com/roster"
    image_tag        = "v1.2.3"
  }

  assert {
    condition     = length(module.registry) == 0 && yamldecode(output.helm_values).image == { repository = "registry.example.com/roster", tag = "v1.2.3" }
    error_message = "The chart is told the image."
  }
}

run "refuses_both_switches" {
  command = plan

  variables {
    storage_only          = true
    existing_cluster_name = "production"
  }

  expect_failures = [var.storage_only]
}

run "refuses_whole_stack_without_administrator" {
  command         = plan
  expect_failures = [var.cluster_admin_arns]
}
