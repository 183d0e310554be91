# Every combination of the variables that decide what is created, on one state.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  region             = "eu-west-1"
  cluster_admin_arns = ["arn:aws:iam::123456789012:role/admin"]

  # Otherwise each run would refuse to replace what the previous one created.
  deletion_protection = false
}

run "whole_stack" {
  assert {
    condition     = length(module.network) == 1 && length(module.cluster) == 1 && length(module.registry) == 1 && length(module.identity) == 1 && length(module.domain) == 0 && length(data.aws_eks_cluster.existing) == 0
    error_message = "By default everything is created, without a domain."
  }

  assert {
    condition = yamldecode(output.helm_values) == {
      image          = { repository = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster" }
      aws            = { region = "eu-west-1", dynamodbTable = "roster-users", s3Bucket = "roster-avatars-0123" }
      serviceAccount = { name = "roster" }
      nodeSpread     = "DoNotSchedule"
    }
    error_message = "The values are image, storage, service account and spread."
  }

  assert {
    condition     = output.cluster_name == "roster" && output.kubeconfig_command == "aws eks update-kubeconfig --region eu-west-1 --name roster" && output.namespace == "roster" && output.url == null
    error_message = "The outputs are those of the new cluster."
  }

  assert {
    condition     = output.table_name == "roster-users" && output.bucket_name == "roster-avatars-0123" && output.role_arn == "arn:aws:iam::123456789012:role/roster" && output.repository_url == "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster"
    error_message = "The outputs name the resources."
  }
}

run "zones" {
  variables {
    nat_gateway_per_zone = true
  }

  assert {
    condition     = length(module.network[0].nat_public_ips) == 3
    error_message = "Each zone has a NAT gateway."
  }
}

run "domain" {
  variables {
    domain = { name = "roster.example.com", zone_id = "Z0123456789ABCDEFGHIJ" }
  }

  assert {
    condition = yamldecode(output.helm_values) == {
      image          = { repository = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster" }
      aws            = { region = "eu-west-1", dynamodbTable = "roster-users", s3Bucket = "roster-avatars-0123" }
      serviceAccount = { name = "roster" }
      nodeSpread     = "DoNotSchedule"
      publicUrl      = "https://roster.example.com"
      ingress = {
        enabled   = true
        className = "alb"
        host      = "roster.example.com"
        annotations = {
          "alb.ingress.kubernetes.io/certificate-arn"         = "arn:aws:acm:eu-west-1:123456789012:certificate/1234abcd-12ab-34cd-56ef-1234567890ab"
          "alb.ingress.kubernetes.io/healthcheck-path"        = "/readyz"
          "alb.ingress.kubernetes.io/listen-ports"            = "[{\"HTTP\":80},{\"HTTPS\":443}]"
          "alb.ingress.kubernetes.io/ssl-redirect"            = "443"
          "alb.ingress.kubernetes.io/target-group-attributes" = "deregistration_delay.timeout_seconds=30"
        }
      }
    }
    error_message = "With a domain the values have host, certificate and Ingress."
  }

  assert {
    condition     = [for document in split("\n---\n", file("cluster.yaml")) : yamldecode(document).metadata.name if yamldecode(document).kind == "IngressClass"] == [yamldecode(output.helm_values).ingress.className]
    error_message = "The class of the Ingress is the one in cluster.yaml."
  }

  assert {
    condition     = output.url == "https://roster.example.com" && output.certificate_arn == "arn:aws:acm:eu-west-1:123456789012:certificate/1234abcd-12ab-34cd-56ef-1234567890ab" && output.certificate_validation_record == "_0123.roster.example.com. CNAME _4567.acm-validations.aws."
    error_message = "The outputs are those of the domain."
  }
}

run "load_balancer" {
  variables {
    domain    = { name = "roster.example.com", zone_id = "Z0123456789ABCDEFGHIJ" }
    name      = "blue"
    namespace = "people"
  }

  assert {
    condition     = module.domain[0].load_balancer_tags == tomap({ "eks:eks-cluster-name" = "blue", "ingress.eks.amazonaws.com/resource" = "LoadBalancer", "ingress.eks.amazonaws.com/stack" = "people/roster" })
    error_message = "The load balancer is that of the Ingress roster in the cluster."
  }
}

run "image_elsewhere" {
  variables {
    image_repository = "registry.example.com:5000/team/roster"
    image_tag        = "1.0"
    namespace        = "people"
    service_account  = "roster-api"
  }

  assert {
    condition     = length(module.cluster) == 1 && length(module.registry) == 0 && output.repository_url == "registry.example.com:5000/team/roster" && output.namespace == "people"
    error_message = "With an image elsewhere no registry is created."
  }

  assert {
    condition = yamldecode(output.helm_values) == {
      image          = { repository = "registry.example.com:5000/team/roster", tag = "1.0" }
      aws            = { region = "eu-west-1", dynamodbTable = "roster-users", s3Bucket = "roster-avatars-0123" }
      serviceAccount = { name = "roster-api" }
      nodeSpread     = "DoNotSchedule"
    }
    error_message = "The values are that image, with a tag that is a string, and that service account."
  }
}

run "existing_cluster" {
  variables {
    existing_cluster_name = "production"
    image_repository      = "registry.example.com/roster"
    cluster_admin_arns    = []
    domain                = { name = "roster.example.com" }
  }

  assert {
    condition     = length(module.network) == 0 && length(module.cluster) == 0 && length(module.registry) == 0 && length(module.identity) == 1 && length(module.domain) == 1 && data.aws_eks_cluster.existing[0].name == "production"
    error_message = "With an existing cluster there is no network, cluster or registry."
  }

  assert {
    condition     = keys(yamldecode(output.helm_values)) == ["aws", "image", "ingress", "publicUrl", "serviceAccount"] && output.cluster_name == "production" && output.kubeconfig_command == "aws eks update-kubeconfig --region eu-west-1 --name production"
    error_message = "The outputs are those of the existing cluster."
  }
}

run "storage_only" {
  variables {
    storage_only       = true
    cluster_admin_arns = []
  }

  assert {
    condition     = length(module.network) == 0 && length(module.cluster) == 0 && length(module.registry) == 0 && length(module.identity) == 0 && length(module.domain) == 0
    error_message = "Only the table and the bucket are created."
  }

  assert {
    condition     = yamldecode(output.helm_values) == { aws = { region = "eu-west-1", dynamodbTable = "roster-users", s3Bucket = "roster-avatars-0123" } }
    error_message = "The values are the storage."
  }

  assert {
    condition     = output.role_arn == null && output.namespace == null && output.cluster_name == null && output.kubeconfig_command == null && output.repository_url == null && output.certificate_arn == null
    error_message = "Outputs of what is not created are null."
  }
}

run "rejects_existing_cluster_without_an_image" {
  command = plan
  variables {
    existing_cluster_name = "production"
  }
  expect_failures = [var.image_repository]
}

run "rejects_storage_only_with_a_cluster" {
  command = plan
  variables {
    storage_only          = true
    existing_cluster_name = "production"
    image_repository      = "registry.example.com/roster"
  }
  expect_failures = [var.storage_only]
}

run "rejects_storage_only_with_a_domain" {
  command = plan
  variables {
    storage_only = true
    domain       = { name = "roster.example.com" }
  }
  expect_failures = [var.storage_only]
}

run "rejects_bad_name" {
  command = plan
  variables { name = "Roster" }
  expect_failures = [var.name]
}
