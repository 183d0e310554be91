mock_provider "aws" {
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/roster-pods" }
  }
}

variables {
  name        = "roster"
  cluster_arn = "arn:aws:eks:eu-west-1:123456789012:cluster/blue"
  table_arn   = "arn:aws:dynamodb:eu-west-1:123456789012:table/roster-users"
  bucket_arn  = "arn:aws:s3:::roster-avatars-0123"
}

run "association" {
  variables {
    namespace       = "people"
    service_account = "roster-api"
  }

  assert {
    condition     = aws_eks_pod_identity_association.this.cluster_name == "blue" && aws_eks_pod_identity_association.this.namespace == "people" && aws_eks_pod_identity_association.this.service_account == "roster-api" && aws_eks_pod_identity_association.this.role_arn == aws_iam_role.this.arn
    error_message = "Pods of the service account in that cluster get the role."
  }

  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = "arn:aws:eks:eu-west-1:123456789012:cluster/blue"
          "aws:RequestTag/kubernetes-namespace"       = "people"
          "aws:RequestTag/kubernetes-service-account" = "roster-api"
        }
      }
    }]
    error_message = "Pod Identity alone may assume the role, for one service account of one cluster."
  }

  assert {
    condition     = output.role_arn == aws_iam_role.this.arn && output.role_name == "roster-pods" && output.namespace == "people" && output.service_account == "roster-api"
    error_message = "The outputs name what was made."
  }
}

run "policy" {
  assert {
    condition     = toset(flatten(jsondecode(aws_iam_role_policy.this.policy).Statement[*].Action)) == toset(["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Scan", "dynamodb:UpdateItem", "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"])
    error_message = "Exactly the actions that the service calls."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Effect == "Allow" && !can(statement.NotAction) && !can(statement.NotResource)])
    error_message = "Nothing is allowed by leaving something out."
  }

  assert {
    condition     = { for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Sid => statement.Resource } == { Users = "arn:aws:dynamodb:eu-west-1:123456789012:table/roster-users", Avatars = "arn:aws:s3:::roster-avatars-0123/avatars/*", ListAvatars = "arn:aws:s3:::roster-avatars-0123" }
    error_message = "Exactly its table, its prefix of the bucket, and the bucket to list."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Condition == { StringLike = { "s3:prefix" = "avatars/*" } } if contains(statement.Action, "s3:ListBucket")])
    error_message = "Only the prefix can be listed."
  }

  assert {
    condition     = aws_iam_role_policy.this.role == aws_iam_role.this.id
    error_message = "The policy is the role's."
  }
}

run "other_partitions" {
  variables {
    cluster_arn = "arn:aws-us-gov:eks:us-gov-west-1:123456789012:cluster/blue"
    table_arn   = "arn:aws-us-gov:dynamodb:us-gov-west-1:123456789012:table/roster-users"
    bucket_arn  = "arn:aws-us-gov:s3:::roster-avatars-0123"
  }

  assert {
    condition     = aws_eks_pod_identity_association.this.cluster_name == "blue"
    error_message = "ARNs of other partitions are as good."
  }
}

run "refuses_bad_name" {
  command = plan
  variables { name = "1roster" }
  expect_failures = [var.name]
}

run "refuses_cluster_name_for_arn" {
  command = plan
  variables { cluster_arn = "blue" }
  expect_failures = [var.cluster_arn]
}

run "refuses_wildcard_cluster" {
  command = plan
  variables { cluster_arn = "arn:aws:eks:eu-west-1:123456789012:cluster/*" }
  expect_failures = [var.cluster_arn]
}

run "refuses_bad_namespace" {
  command = plan
  variables { namespace = "Roster" }
  expect_failures = [var.namespace]
}

run "refuses_wildcard_namespace" {
  command = plan
  variables { namespace = "*" }
  expect_failures = [var.namespace]
}

run "refuses_bad_service_account" {
  command = plan
  variables { service_account = "roster_api" }
  expect_failures = [var.service_account]
}

run "refuses_index_for_table" {
  command = plan
  variables { table_arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/roster-users/index/email" }
  expect_failures = [var.table_arn]
}

run "refuses_wildcard_table" {
  command = plan
  variables { table_arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/*" }
  expect_failures = [var.table_arn]
}

run "refuses_objects_for_bucket" {
  command = plan
  variables { bucket_arn = "arn:aws:s3:::roster-avatars-0123/*" }
  expect_failures = [var.bucket_arn]
}

run "refuses_bucket_name_for_arn" {
  command = plan
  variables { bucket_arn = "roster-avatars-0123" }
  expect_failures = [var.bucket_arn]
}
