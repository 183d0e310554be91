mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name            = "roster"
  cluster_arn     = "arn:aws:eks:eu-west-1:123456789012:cluster/blue"
  namespace       = "people"
  service_account = "roster-api"
  table_arn       = "arn:aws:dynamodb:eu-west-1:123456789012:table/roster-users"
  bucket_arn      = "arn:aws:s3:::roster-avatars-0123"
}

run "association" {
  assert {
    condition     = aws_eks_pod_identity_association.pods.cluster_name == "blue" && aws_eks_pod_identity_association.pods.namespace == "people" && aws_eks_pod_identity_association.pods.service_account == "roster-api" && aws_eks_pod_identity_association.pods.role_arn == aws_iam_role.pods.arn
    error_message = "Pods of the service account in the cluster get the role."
  }

  assert {
    condition = jsondecode(aws_iam_role.pods.assume_role_policy).Statement == [{
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
    error_message = "Only Pod Identity may assume the role, for one service account of one cluster."
  }

  assert {
    condition     = aws_iam_role.pods.name == "roster-pods-eu-west-1" && output.role_arn == aws_iam_role.pods.arn
    error_message = "The role's name is unique across regions."
  }
}

run "policy" {
  assert {
    condition     = toset(flatten(jsondecode(aws_iam_role_policy.storage.policy).Statement[*].Action)) == toset(["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Scan", "dynamodb:UpdateItem", "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"])
    error_message = "The actions of the service and no others."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.storage.policy).Statement : statement.Effect == "Allow" && !can(statement.NotAction) && !can(statement.NotResource)])
    error_message = "Statements only allow, by name."
  }

  assert {
    condition     = { for statement in jsondecode(aws_iam_role_policy.storage.policy).Statement : statement.Sid => statement.Resource } == { Users = "arn:aws:dynamodb:eu-west-1:123456789012:table/roster-users", Avatars = "arn:aws:s3:::roster-avatars-0123/avatars/*", ListAvatars = "arn:aws:s3:::roster-avatars-0123" }
    error_message = "The table, the prefix of the bucket, and the bucket to list."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.storage.policy).Statement : !can(statement.Condition)])
    error_message = "No condition: with one on s3:ListBucket, S3 returns 403 for a missing key."
  }

  assert {
    condition     = aws_iam_role_policy.storage.role == aws_iam_role.pods.id
    error_message = "The policy is the role's."
  }
}
