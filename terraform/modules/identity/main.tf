resource "aws_eks_pod_identity_association" "this" {
  cluster_name    = split("/", var.cluster_arn)[1]
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.this.arn

  tags = { Name = var.name }

  # Credentials that a pod is given before the policy is there are refused.
  depends_on = [aws_iam_role_policy.this]
}

# EKS Pod Identity tags each session with the pod's cluster, namespace and
# service account. Without the conditions an association in any cluster of the
# account could hand the role out.
# https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html
resource "aws_iam_role" "this" {
  name        = "${var.name}-pods"
  description = "What pods of service account ${var.namespace}/${var.service_account} may do on AWS"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = var.cluster_arn
          "aws:RequestTag/kubernetes-namespace"       = var.namespace
          "aws:RequestTag/kubernetes-service-account" = var.service_account
        }
      }
    }]
  })
}

# Exactly the calls that the service makes: no index, no table or bucket
# management, no object outside avatars/.
resource "aws_iam_role_policy" "this" {
  name = "storage"
  role = aws_iam_role.this.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Users"
        Effect = "Allow"
        Action = [
          "dynamodb:DeleteItem",
          "dynamodb:GetItem",
          "dynamodb:PutItem",
          "dynamodb:Scan",
          "dynamodb:UpdateItem",
        ]
        Resource = var.table_arn
      },
      {
        Sid    = "Avatars"
        Effect = "Allow"
        Action = [
          "s3:DeleteObject",
          "s3:GetObject",
          "s3:PutObject",
        ]
        Resource = "${var.bucket_arn}/avatars/*"
      },
      {
        Sid       = "ListAvatars"
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = var.bucket_arn
        Condition = { StringLike = { "s3:prefix" = "avatars/*" } }
      },
    ]
  })
}
